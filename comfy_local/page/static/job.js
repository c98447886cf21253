// Sends a job and follows it until it ends.

import { CallError, call, pause } from "./api.js";

const FIRST_POLL_MS = 250;
const POLL_MS = 500;
const SLOW_POLL_MS = 2000;
const HIDDEN_POLL_MS = 5000;
const MOST_FAILURES = 8;
const ENDED = ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"];

// A job that did not succeed: a code, one sentence, and what each problem belongs to.
export class JobFailure extends Error {
  constructor({ code, message, details = [] }) {
    super(message);
    this.code = code;
    this.details = details;
  }
}

// Waits less at the start, more for a job that takes long, and much more in a hidden tab.
function pollPause(count) {
  if (document.hidden) return HIDDEN_POLL_MS;
  if (count < 4) return FIRST_POLL_MS;
  return count < 240 ? POLL_MS : SLOW_POLL_MS;
}

// Runs a request. Returns its result, or throws a JobFailure or a CallError.
// `onUpdate(job)` gets each answer of /status; `onStart(id)` the job's id; `signal` cancels it.
export async function runToEnd(input, { onUpdate = () => {}, onStart = () => {}, signal } = {}) {
  const { id } = await call("POST", "run", { input });
  onStart(id);
  const cancel = () => call("POST", `cancel/${id}`, {}).catch(() => {});
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    if (signal?.aborted) cancel();
    return outcome(await followed(id, onUpdate));
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
}

async function followed(id, onUpdate) {
  let failures = 0;
  for (let count = 0; ; count += 1) {
    await pause(pollPause(count));
    try {
      const job = await call("GET", `status/${id}`);
      failures = 0;
      if (ENDED.includes(job.status)) return job;
      onUpdate(job);
    } catch (error) {
      failures += 1;
      const isPassing = error instanceof CallError && (error.status === 0 || error.status === 429 || error.status >= 500);
      if (!isPassing || failures >= MOST_FAILURES) throw error;
      await pause(Math.max(error.retryAfterMs, POLL_MS * 2 ** failures));
    }
  }
}

// A worker that streams has a list of all values in `output`; the result is the last one.
function outcome(job) {
  const output = Array.isArray(job.output) ? job.output.at(-1) : job.output;
  if (job.status === "COMPLETED" && output) return output;
  if (job.status === "CANCELLED") throw new JobFailure({ code: "JOB_CANCELLED", message: "The job was cancelled." });
  const text = typeof job.error === "string" ? job.error : JSON.stringify(job.error ?? "");
  const [, code, message] = /^([A-Z_]+): ([^]*)$/.exec(text) ?? [null, job.status, text || "The job ended without a result."];
  throw new JobFailure({ code: output?.code ?? code, message: output?.message ?? message, details: output?.details ?? [] });
}
