#!/usr/bin/env node
// A worker in JavaScript, a child of the command, by the protocol of docs/reference/pipe.md:
//
//     reveille work --queue mail=32 --pipe 'node examples/pipe_worker.mjs' --children 2
//     reveille enqueue send_mail '{"to": "ada@example.org"}' --queue mail
//
// Node reads lines in its event loop, so a handler must not block the loop for long.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const handlers = {
  async send_mail({ to }, job) {
    if (!to?.includes("@")) throw Object.assign(new Error(`${to} is no address`), { permanent: true });
    job.progress({ step: "sent" });
    return { sent_to: to };
  },
  async wait({ seconds }, job) {
    await sleep(seconds * 1000, undefined, { signal: job.signal });
  },
};

console.log = console.error; // standard output belongs to the protocol
const send = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const runs = new Map();
let stopping = false;

async function work(job) {
  const { run } = job;
  const abort = new AbortController();
  runs.set(run, abort);
  const progress = (value) => send({ type: "progress", run, value });
  try {
    const result = await handlers[job.kind](job.payload, { ...job, signal: abort.signal, progress });
    send({ type: "done", run, result });
  } catch (error) {
    send({ type: "fail", run, error: String(error.stack ?? error), permanent: error.permanent });
  }
  runs.delete(run);
  exitIfStopped();
}

function exitIfStopped() {
  if (stopping && runs.size === 0) process.stdout.write("", () => process.exit(0));
}

const receive = {
  hello: () => send({ type: "ready", version: 1, kinds: Object.keys(handlers) }),
  job: work,
  cancel: ({ run, reason }) => runs.get(run)?.abort(new Error(`stopped: ${reason}`)),
  answer: () => {},
  stop: () => {
    stopping = true;
    exitIfStopped();
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const message = JSON.parse(line);
    if (!(message.type in receive)) throw new Error(`a message of an unknown type: ${message.type}`);
    receive[message.type](message);
  })
  .on("close", () => process.exit(0));
