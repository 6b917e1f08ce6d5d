// Runs the suite's client as its cli.mjs does and tells the outcome as JSON: `node run.mjs SUITE BASE-URL ONLY DUMP`.
// ONLY is a list of groups or tests, joined by commas, or empty; DUMP is 1 to have every message told on stderr. cli.mjs
// itself knows one test or all. What an outcome means is asked of the suite's own lib/display.mjs.

import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'

const [suite, base, only, dump] = process.argv.slice(2)
const load = file => import(pathToFileURL(path.join(suite, file)).href)
const display = await load('lib/display.mjs')
const { default: groups } = await load('tests/index.mjs')
const { default: published } = await load('results/index.mjs')
const { getResults, runTests } = await load('client/runner.mjs')
const fetch = createRequire(path.join(suite, 'cli.mjs'))('node-fetch')

const MEANING = {
  '✅': 'pass',
  '⛔️': 'fail',
  '⚠️': 'not optimal',
  Y: 'yes',
  N: 'no',
  '🔹': 'setup',
  '⁉️': 'harness',
  '⚪️': 'dependency',
  '↻': 'retry',
  '-': 'untested'
}

const tests = new Map(groups.flatMap(group => group.tests.map(test => [test.id, { group, test }])))

function wanted () {
  const asked = only.split(',').filter(Boolean)
  if (asked.length === 0) return new Set(tests.keys())
  const known = new Set([...groups.map(group => group.id), ...tests.keys()])
  const unknown = asked.filter(name => !known.has(name))
  if (unknown.length) {
    console.error(`no group or test is called ${unknown.join(', ')}; groups: ${groups.map(group => group.id).join(', ')}`)
    process.exit(1)
  }
  return new Set([...tests].filter(([id, { group }]) => asked.includes(id) || asked.includes(group.id)).map(([id]) => id))
}

// A test is judged only where those that it depends on have passed, so they are run with it, whatever group they are of.
function withDependencies (ids) {
  const all = new Set()
  const add = id => {
    if (all.has(id)) return
    all.add(id)
    const needed = tests.get(id).test.depends_on || []
    needed.forEach(add)
  }
  ids.forEach(add)
  return all
}

function judged (results, ids) {
  return groups.map(group => ({
    id: group.id,
    name: group.name,
    tests: group.tests.filter(test => ids.has(test.id) && !test.browser_only).map(test => {
      const symbol = display.determineTestResult(groups, test.id, results)[2]
      if (!(symbol in MEANING)) throw new Error(`${test.id}: the suite judges it ${symbol}, which is not known here`)
      const raw = results[test.id]
      return { id: test.id, name: test.name, kind: test.kind || 'required', result: MEANING[symbol], detail: Array.isArray(raw) ? raw[1] : '' }
    })
  })).filter(group => group.tests.length)
}

const told = console.log
console.log = console.error // stdout is for the outcome
const ids = wanted()
const running = withDependencies(ids)
const suites = groups.map(group => ({ ...group, tests: group.tests.filter(test => running.has(test.id)) }))
if (dump === '1') suites.forEach(group => group.tests.forEach(test => { test.dump = true }))
await runTests(suites, fetch, false, base)

const peers = published.filter(peer => peer.type === 'rev-proxy').map(peer => ({
  name: peer.name,
  version: peer.version,
  groups: judged(JSON.parse(fs.readFileSync(path.join(suite, 'results', peer.file), 'utf8')), ids)
}))
const raw = getResults()
told(JSON.stringify({ groups: judged(raw, ids), raw, peers }))
