// The page's half of the chat: it keeps the conversation, sends all of it with each question, and shows the answer as
// it comes. What the model writes reaches the page as text nodes alone, so it is never read as HTML.

const log = document.querySelector("main");
const form = document.querySelector("form");
const { question: input, send, stop, latest } = form.elements;
const turns = [];
let running = null; // the AbortController of the answer that is being written

/** Something went wrong; its message is a sentence for the person who asked. */
class Failure extends Error {}

const CUT_OFF = "The connection broke before the answer was complete.";
const FAILURES = {
  connection_lost: CUT_OFF,
  empty: "The assistant had no answer.",
  rate_limited: "The assistant has too much to do at the moment. Wait a little before you try again.",
  timeout: "The assistant took too long to answer.",
};

// ── the wire ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** The events of a text/event-stream, however its bytes were split on their way. A broken connection ends them. */
export async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, name, data] = ["", "", []];
  try {
    for (;;) {
      const read = await reader.read().catch(() => ({ done: true }));
      if (read.done) return;
      const lines = (rest + read.value).split(/\r\n|\n|\r(?!$)/); // a CR at the end may be the first half of CRLF
      rest = lines.pop();
      for (const line of lines) {
        const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line); // a comment is a field without a name
        if (field === "event") name = value;
        if (field === "data") data.push(value);
        if (line) continue;
        if (data.length) yield { name, data: data.join("\n") };
        [name, data] = ["", []];
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** What each chunk adds to the answer. A Failure if the answer does not come to its end. */
async function* ask(messages, signal) {
  const headers = { "content-type": "application/json" };
  const request = fetch("chat", { method: "POST", headers, body: JSON.stringify({ messages }), signal });
  const response = await request.catch(() => {
    throw new Failure("The chat cannot be reached. Check your connection.");
  });
  if (!response.ok) throw new Failure("The chat could not take this question.");
  for await (const { name, data } of serverSentEvents(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (name === "error") throw new Failure(FAILURES[event.error.code] ?? event.error.message);
    yield* (event.choices ?? []).filter((choice) => !choice.index);
  }
  throw new Failure(CUT_OFF);
}

function textOf(choice) {
  const content = choice.delta?.content ?? "";
  return typeof content === "string" ? content : content.map((part) => part.text ?? "").join("");
}

// ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────

const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;

/** Change the conversation. Its end stays in view for a reader who is there; one who scrolled up is left alone. */
function change(how, follow = atEnd()) {
  how();
  if (follow) log.scrollTop = log.scrollHeight;
  latest.hidden = atEnd();
}

/** Text that grows, with fenced code in blocks. What may become a fence waits, and so does the space before it. */
class GrowingText {
  tag = "p";
  block = null;
  waiting = "";
  space = "";
  inLine = false;

  constructor(element) {
    this.element = element;
    element.replaceChildren();
  }

  add(text) {
    const lines = (this.waiting + text).split(/(?<=\n)/);
    this.waiting = "";
    for (const line of lines) {
      if (!this.inLine && /^ {0,3}(`{0,2}|`{3,}[^`\n]*)$/.test(line)) {
        this.waiting = line;
      } else if (!this.inLine && /^ {0,3}`{3,}[^`]*$/.test(line)) {
        [this.tag, this.block, this.space] = [this.tag === "p" ? "pre" : "p", null, ""];
      } else {
        this.show(line);
      }
    }
  }

  end() {
    if (!this.waiting.includes("```")) this.show(this.waiting);
  }

  show(text) {
    this.inLine = !text.endsWith("\n");
    const shown = (this.space + text).trimEnd();
    this.space = (this.space + text).slice(shown.length);
    if (!shown) return;
    this.block ??= this.element.appendChild(document.createElement(this.tag)).appendChild(new Text());
    this.block.appendData(this.block.length ? shown : shown.replace(/^\s*\n/, ""));
  }
}

/** A question with its answer: what the page shows, and what is sent along with later questions. */
class Turn {
  constructor(question) {
    this.question = question;
    const element = document.querySelector("template").content.firstElementChild.cloneNode(true);
    element.querySelector(".question").textContent = question;
    const find = (selector) => element.querySelector(selector);
    [this.answerElement, this.textElement, this.note] = [".answer", ".text", ".note"].map(find);
    [this.failure, this.sentence, this.again] = [".failure", ".failure p", ".failure button"].map(find);
    this.again.onclick = () => answer(this);
    change(() => log.append(element), true);
  }

  begin() {
    this.growing = null;
    this.set("waiting");
  }

  add(text) {
    if (!text) return;
    change(() => {
      if (!this.growing) {
        this.answer = ""; // what an earlier try left is shown until there is something better
        this.growing = new GrowingText(this.textElement);
        this.set("growing");
      }
      this.answer += text;
      this.growing.add(text);
    });
  }

  end(state, note, failure) {
    change(() => {
      this.growing?.end();
      this.set(state, note, failure);
    });
  }

  set(state, note = "", failure = "") {
    this.answerElement.className = `answer ${state}`;
    this.answerElement.ariaBusy = state === "waiting" || state === "growing";
    this.note.textContent = note;
    this.failure.hidden = !failure;
    this.sentence.textContent = failure;
  }
}

async function answer(turn) {
  const controller = (running = new AbortController());
  for (const other of turns) other.again.hidden = other !== turn; // only the last question can be asked again
  turn.begin();
  update();
  input.focus();
  // A question that got no answer is not sent along with later ones.
  const messages = turns.filter((other) => other.answer || other === turn).flatMap((other) => [
    { role: "user", content: other.question },
    ...(other === turn ? [] : [{ role: "assistant", content: other.answer }]),
  ]);
  let finish;
  try {
    for await (const choice of ask(messages, controller.signal)) {
      turn.add(textOf(choice));
      finish = choice.finish_reason ?? finish;
    }
    turn.end("done", finish === "length" ? "The answer reached its length limit, and ends here." : "");
  } catch (error) {
    const sentence = error instanceof Failure ? error.message : "This page could not read the answer.";
    if (controller.signal.aborted) turn.end("stopped", "You stopped this answer.");
    else turn.end("failed", "", turn.answer ? `${sentence} What came so far is kept.` : sentence);
  }
  running = null;
  update();
}

/** Show the buttons that do something now. */
function update() {
  send.hidden = Boolean(running);
  stop.hidden = !running;
  send.disabled = !input.value.trim();
}

form.onsubmit = (event) => {
  event.preventDefault();
  const question = input.value.trim();
  if (running || !question) return;
  document.querySelector(".welcome")?.remove();
  form.reset();
  turns.push(new Turn(question));
  answer(turns.at(-1));
};
input.oninput = update;
input.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // while composing, Enter chooses a word
  event.preventDefault();
  form.requestSubmit();
};
document.onkeydown = (event) => {
  if (event.key === "Escape" && !event.isComposing) running?.abort();
};
stop.onclick = () => {
  running.abort();
  input.focus();
};
log.onscroll = () => (latest.hidden = atEnd());
latest.onclick = () => change(() => input.focus(), true);
for (const example of document.querySelectorAll(".welcome button")) {
  example.onclick = () => {
    input.value = example.textContent;
    form.requestSubmit();
  };
}
update();
