/* Numbers as people read them. What is not known is a dash, never a zero. */

export const UNKNOWN = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Events per second. */
export function rate(value) {
  if (!known(value)) return UNKNOWN;
  if (value === 0) return "0";
  if (value < 0.05) return "<0.1";
  if (value < 9.95) return value.toFixed(1);
  if (value < 9999.5) return Math.round(value).toString();
  return `${(value / 1000).toFixed(value < 99950 ? 1 : 0)}k`;
}

export function whole(value) {
  return known(value) ? Math.round(value).toString() : UNKNOWN;
}

/** A share of 1 as per cent. */
export function share(value) {
  if (!known(value)) return UNKNOWN;
  const percent = value * 100;
  if (percent > 0 && percent < 0.95) return "<1%";
  if (percent > 99 && percent < 100) return ">99%";
  return `${Math.round(percent)}%`;
}

/** How long something took. */
export function latency(seconds) {
  if (!known(seconds)) return UNKNOWN;
  const milliseconds = seconds * 1000;
  if (milliseconds < 9.95) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 999.5) return `${Math.round(milliseconds)} ms`;
  return seconds < 9.95 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
}

/** How long ago something was, or how long it will be. */
export function span(seconds) {
  if (!known(seconds)) return UNKNOWN;
  const rest = Math.max(0, Math.floor(seconds));
  if (rest < 60) return `${rest} s`;
  if (rest < 3600) return `${Math.floor(rest / 60)} min`;
  if (rest < 86400) return `${Math.floor(rest / 3600)} h ${Math.floor((rest % 3600) / 60)} min`;
  return `${Math.floor(rest / 86400)} d ${Math.floor((rest % 86400) / 3600)} h`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** The time of day, in the reader's zone. */
export function clock(seconds) {
  return known(seconds) ? CLOCK.format(seconds * 1000) : UNKNOWN;
}

/** The same with date and zone, for machines and for tooltips. */
export function date(seconds) {
  return known(seconds) ? new Date(seconds * 1000).toISOString() : "";
}

/** "a", "a and b", "a, b and 3 more" */
export function several(names, most = 3) {
  if (names.length <= 1) return names.join("");
  const shown = names.slice(0, names.length > most ? most - 1 : most);
  const rest = names.length - shown.length;
  const last = rest > 0 ? `${rest} more` : shown.pop();
  return `${shown.join(", ")} and ${last}`;
}

export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;
