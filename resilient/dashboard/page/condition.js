/* What the numbers mean: the condition of a dependency, a feature, the service, and what is the trouble now. */

import { clock, count, rate, several, share } from "./format.js";

const FAILING = 0.05; // from this share of failures a dependency whose circuit is closed is in trouble all the same
const LOW_BUDGET = 0.1;

const STATES = {
  closed: { tone: "ok", shape: "ok", word: "Closed", rank: 0 },
  "half-open": { tone: "warning", shape: "half", word: "Half-open", rank: 4 },
  open: { tone: "bad", shape: "bad", word: "Open", rank: 6 },
  isolated: { tone: "bad", shape: "isolated", word: "Isolated", rank: 5 },
  disabled: { tone: "off", shape: "off", word: "Disabled", rank: 1 },
};

const LEVELS = {
  full: { tone: "ok", shape: "ok", word: "Full", rank: 0 },
  reduced: { tone: "warning", shape: "half", word: "Reduced", rank: 1 },
  static: { tone: "warning", shape: "warning", word: "Static", rank: 2 },
  off: { tone: "bad", shape: "bad", word: "Off", rank: 3 },
};

const SERVICE = {
  healthy: { tone: "ok", shape: "ok", word: "Healthy" },
  degraded: { tone: "warning", shape: "warning", word: "Degraded" },
  critical: { tone: "bad", shape: "bad", word: "Critical" },
};

/** How a dependency is. `rank` orders them: the higher, the worse; from 2 on it is trouble. */
export function conditionOf(dependency) {
  const state = STATES[dependency.state] ?? unheardOf(dependency.state);
  if (dependency.state !== "closed" && dependency.state !== null) return dependency.enforce === false ? watching(state) : state;
  const plain = dependency.state === null ? { tone: "ok", shape: "ok", word: "No circuit", rank: 0 } : state;
  if (dependency.calls > 0 && dependency.failure_ratio >= FAILING)
    return { ...plain, tone: "warning", shape: "warning", word: "Failing", rank: 3 };
  if (dependency.rejections > 0) return { ...plain, tone: "warning", shape: "warning", word: "Rejecting", rank: 2 };
  if (dependency.budget !== null && dependency.budget < LOW_BUDGET)
    return { ...plain, tone: "warning", shape: "warning", word: "No retries left", rank: 2 };
  return plain;
}

/** A circuit that decides, and lets every call through all the same. */
function watching(state) {
  return {
    ...state,
    tone: state.tone === "bad" ? "warning" : state.tone,
    word: `${state.word} (shadow)`,
    rank: Math.min(state.rank, 2),
  };
}

export const IN_TROUBLE = 2;

export function levelOf(feature) {
  return LEVELS[feature.level] ?? unheardOf(feature.level);
}

export function serviceOf(service) {
  const known = SERVICE[service.level] ?? unheardOf(service.level);
  return service.status === "ready" || service.status === undefined
    ? known
    : { ...known, tone: known.tone === "ok" ? "warning" : known.tone };
}

function unheardOf(word) {
  return { tone: "warning", shape: "off", word: String(word ?? "Unknown"), rank: 2 };
}

/** The service in one sentence. */
export function summaryOf(document) {
  const { service, dependencies, features } = document;
  const parts = [];
  const ill = dependencies.filter((one) => conditionOf(one).rank >= IN_TROUBLE).length;
  const less = features.filter((one) => one.level !== "full").length;
  if (ill > 0) parts.push(`${ill} of ${count(dependencies.length, "dependency", "dependencies")} in trouble`);
  if (less > 0) parts.push(`${less} of ${count(features.length, "feature")} served below full`);
  if (parts.length > 0) return `${parts.join(", ")}.`;
  if (!service.enabled) return "The policies are switched off: every call passes untouched.";
  if (dependencies.length === 0) return "No dependency is declared, and none was called yet.";
  return features.length > 0 ? "Every dependency answers, every feature is full." : "Every dependency answers.";
}

/** Why it is so, the worst first: sentences with a tone, a shape, and the name of the row that tells more. */
export function reasonsOf(document) {
  return [
    ...ofService(document.service),
    ...ofChecks(document.checks ?? []),
    ...ofDependencies(document.dependencies),
    ...ofFeatures(document.features),
    ...ofLoad(document.load),
  ];
}

function* ofService(service) {
  if (service.draining || service.status === "draining")
    yield { tone: "warning", shape: "warning", text: "draining: no requests should be sent here, what is in flight is finished" };
  else if (service.status === "starting") {
    const waiting = service.waiting?.length > 0 ? `, waits for ${several(service.waiting, 4)}` : "";
    yield { tone: "warning", shape: "half", text: `starting: not ready yet${waiting}` };
  } else if (!service.ready) yield { tone: "bad", shape: "bad", text: "not ready: no requests should be sent here" };
  if (!service.enabled) yield { tone: "off", shape: "off", text: "the policies are switched off: every call passes untouched" };
  if (service.read_only !== null && service.read_only !== undefined) {
    const stop = service.read_only;
    const parts = [
      stop.enforce === false ? "read-only (shadow: nothing is refused)" : "read-only: writes are refused",
      saidBy(stop),
    ];
    if (stop.until) parts.push(`until ${clock(stop.until)}`);
    yield { tone: "warning", shape: "isolated", text: parts.filter(Boolean).join(", ") };
  }
}

function ofChecks(checks) {
  const ill = checks.filter((one) => one.state === "ill");
  ill.sort((a, b) => b.required - a.required);
  return ill.map((one) => {
    const facts = [one.required ? "required" : "", one.dependency ? `of ${one.dependency}` : "", one.reason].filter(Boolean);
    const text = `check ${one.name} is ill${facts.length > 0 ? ` (${facts.join(", ")})` : ""}`;
    return { tone: one.required ? "bad" : "warning", shape: one.required ? "bad" : "warning", text };
  });
}

function ofDependencies(dependencies) {
  const ill = dependencies
    .map((one) => ({ one, condition: conditionOf(one) }))
    .filter(({ condition }) => condition.rank >= IN_TROUBLE);
  ill.sort((a, b) => b.condition.rank - a.condition.rank || b.one.required - a.one.required);
  return ill.map(({ one, condition }) => {
    const facts = [
      one.required ? "required" : "",
      condition.word === "Failing" ? `${share(one.failure_ratio)} of its calls` : one.reason,
    ].filter(Boolean);
    const text = `is ${condition.word.toLowerCase()}${facts.length > 0 ? ` (${facts.join(", ")})` : ""}`;
    return { tone: condition.tone, shape: condition.shape, about: one.name, text };
  });
}

function ofFeatures(features) {
  const less = features.filter((one) => one.level !== "full").map((one) => ({ one, level: levelOf(one) }));
  less.sort((a, b) => b.one.critical - a.one.critical || b.level.rank - a.level.rank);
  return less.map(({ one, level }) => {
    const text = `${one.critical ? "(critical) " : ""}is ${level.word.toLowerCase()}${one.cause ? `: ${one.cause}` : ""}`;
    return { tone: level.tone, shape: level.shape, feature: one.name, text };
  });
}

function* ofLoad(load) {
  if (!load) return;
  if (load.shed > 0)
    yield { tone: "warning", shape: "warning", text: `${rate(load.shed)} requests a second are shed${shedBy(load)}` };
  if (load.brownout && load.brownout.share < 1 && load.brownout.enforce !== false) {
    yield {
      tone: "warning",
      shape: "half",
      text: `brownout: optional features are served to ${share(load.brownout.share)} of the requests`,
    };
  }
}

function shedBy(load) {
  const classes = Object.entries(load.shed_by ?? {})
    .filter(([, number]) => number > 0)
    .map(([name]) => name.replace("_", " "));
  return classes.length > 0 ? `: ${several(classes, 4)}` : "";
}

/** Who said something, and why, as far as they told. */
export function saidBy({ by, why }) {
  if (by && why) return `${by}: ${why}`;
  return by ? `by ${by}` : why || "";
}
