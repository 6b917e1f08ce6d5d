/* Where the numbers come from: the event stream, and /state where there is no stream to be had. */

const SILENT = 6; // seconds without a word on an open stream: something between buffers it, or the other end is gone
const PATIENCE = 3; // failures of the stream before /state is asked instead
const POLL = 2; // seconds between two looks at /state
const RETRY = [3, 5, 10, 20, 30]; // seconds before the stream is tried again meanwhile
const ASKED = 3; // times that history and log are asked for
const GIVE_UP = 5000; // milliseconds for one look at /state

export class Connection {
  #base;
  #heard;
  #stream = null;
  #opened = 0;
  #last = 0; // when the open stream was heard last
  #failures = 0;
  #fresh = false; // the stream was opened anew: what was logged before is not known yet
  #polling = null;
  #again = null;
  #why = "";

  /**
   * `heard` has state(document, polled), event(event), phase(name, why), and whole(document), which takes history and log
   * and returns whether they are of the worker that is shown.
   */
  constructor(base, heard) {
    this.#base = base;
    this.#heard = heard;
  }

  start() {
    if (this.#stream === null) this.#open();
  }

  stop() {
    clearTimeout(this.#polling);
    clearTimeout(this.#again);
    this.#polling = this.#again = null;
    this.#close();
  }

  /** To be called about once a second. */
  tick() {
    if (
      this.#stream !== null &&
      this.#stream.readyState !== EventSource.CLOSED &&
      seconds() - Math.max(this.#last, this.#opened) > SILENT
    ) {
      this.#failed("nothing comes through the stream");
    }
  }

  /** Asks for the whole document: history and log come with it. */
  async load() {
    for (let turn = 0; turn < ASKED; turn += 1) {
      const document = await this.#look();
      if (document === null || this.#heard.whole(document)) return; // another worker may have answered: asked again
    }
  }

  #url(path) {
    return new URL(path, this.#base);
  }

  #open() {
    this.#close();
    this.#opened = seconds();
    this.#fresh = true;
    const stream = new EventSource(this.#url("stream"));
    this.#stream = stream;
    stream.addEventListener("state", (message) => this.#state(JSON.parse(message.data)));
    stream.addEventListener("log", (message) => {
      this.#last = seconds();
      this.#heard.event(JSON.parse(message.data));
    });
    stream.addEventListener("reset", () => this.load());
    stream.addEventListener("error", () => this.#failed("the stream ended"));
  }

  #close() {
    this.#stream?.close();
    this.#stream = null;
  }

  #state(document) {
    this.#last = seconds();
    this.#failures = 0;
    this.#why = "";
    clearTimeout(this.#polling);
    clearTimeout(this.#again);
    this.#polling = this.#again = null;
    this.#heard.phase("live", "");
    this.#heard.state(document);
    if (this.#fresh) {
      this.#fresh = false;
      this.load();
    }
  }

  #failed(why) {
    this.#failures += 1;
    const ended = this.#stream.readyState === EventSource.CLOSED;
    if (!ended && this.#failures < PATIENCE && why !== "nothing comes through the stream") {
      this.#opened = seconds();
      this.#heard.phase("reconnecting", why); // the browser tries again by itself, and says what it has heard last
      return;
    }
    this.#close();
    this.#heard.phase("reconnecting", this.#why || why);
    const wait = RETRY[Math.min(Math.max(0, this.#failures - PATIENCE), RETRY.length - 1)];
    clearTimeout(this.#again);
    this.#again = setTimeout(() => this.#open(), wait * 1000);
    if (this.#polling === null) this.#poll();
  }

  async #poll() {
    this.#polling = setTimeout(() => this.#poll(), POLL * 1000);
    const turn = this.#polling;
    const document = await this.#look();
    if (this.#polling === null) return; // the stream is back
    if (document === null) {
      this.#heard.phase("reconnecting", this.#why);
      return;
    }
    if (turn !== this.#polling) return; // a later look is under way
    this.#heard.phase("polling", "no stream; asked every 2 s");
    this.#heard.state(document, true);
    this.#heard.whole(document);
  }

  /** The document of /state; null if there is none, and then `#why` says why. */
  async #look() {
    try {
      const answer = await fetch(this.#url("state"), { cache: "no-store", signal: AbortSignal.timeout(GIVE_UP) });
      if (answer.ok) return await answer.json();
      this.#why =
        answer.status === 403 || answer.status === 401
          ? `you may not read this (${answer.status})`
          : `the server says ${answer.status}`;
    } catch (error) {
      this.#why =
        error.name === "TimeoutError"
          ? "the server does not answer"
          : error instanceof SyntaxError
            ? "the answer is no state document"
            : "the server cannot be reached";
    }
    return null;
  }
}

const seconds = () => performance.now() / 1000;
