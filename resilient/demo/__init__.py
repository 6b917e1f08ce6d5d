"""The show behind `resilient demo`: one shop, once bare and once protected, over three services that fail on cue.

Real processes on loopback (`server`, `upstreams`, `shop`, `processes`) stand under an open-loop load (`load`, `client`)
while a `timeline` switches faults on and off (`run`). What was seen is a `recording`; the live view (`live`), the
`verdict` and the HTML page (`report`, `plots`) are functions of it.
"""
