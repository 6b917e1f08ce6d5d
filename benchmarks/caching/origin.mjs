// The suite's own origin server, on a free loopback port: `node origin.mjs SUITE`. It tells the port on stdout and ends
// when stdin does, however its parent ends. The suite's server/server.mjs would listen on every interface and leave a
// pid file; what it does with a request (its three handlers) is what runs here.

import http from 'node:http'
import path from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'

const suite = process.argv[2]
const load = async file => (await import(pathToFileURL(path.join(suite, file)).href)).default
const handlers = {
  config: await load('server/handle-config.mjs'),
  state: await load('server/handle-state.mjs'),
  test: await load('server/handle-test.mjs')
}
console.log = console.error // what the handlers tell is not for who waits for the port

const server = http.createServer((request, response) => {
  const [kind, ...rest] = new URL(request.url, 'http://localhost/').pathname.split('/').slice(1)
  if (kind in handlers) {
    handlers[kind](rest, request, response)
  } else {
    response.writeHead(404).end()
  }
})
server.listen(0, '127.0.0.1', () => process.stdout.write(`${server.address().port}\n`))
process.stdin.resume().on('end', () => process.exit(0))
