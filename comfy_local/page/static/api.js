// Calls the endpoint: the one that serves this page, or one on RunPod.

const STORED = "comfy-worker.connection";
const RUNPOD = "https://api.runpod.ai/v2";
const LONGEST_ERROR = 500;

// An answer that is not 2xx, or none at all. `status` is 0 if there was none.
export class CallError extends Error {
  constructor(message, status, retryAfterMs = 0) {
    super(message);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }
}

// The list of templates that was written into a page of one file; null on a page that is served.
export function bakedCatalog() {
  const element = document.getElementById("catalog");
  return element === null ? null : JSON.parse(element.textContent);
}

function readStored(storage) {
  try {
    return JSON.parse(storage.getItem(STORED));
  } catch {
    return null; // the browser forbids storage, or another program wrote this
  }
}

// `target`: "local" or "runpod"; `endpoint`: an id or a URL; `key`: the API key; `remember`.
export function connection() {
  const isServed = bakedCatalog() === null;
  const initial = { target: isServed ? "local" : "runpod", endpoint: "", key: "", remember: false };
  const stored = readStored(sessionStorage) ?? readStored(localStorage) ?? {};
  const found = { ...initial, ...stored };
  if (!isServed) found.target = "runpod";
  return found;
}

// The key stays in this tab, or in this browser if the user wants that.
export function setConnection(chosen) {
  const text = JSON.stringify(chosen);
  try {
    sessionStorage.setItem(STORED, text);
    if (chosen.remember) localStorage.setItem(STORED, text);
    else localStorage.removeItem(STORED);
  } catch {
    return false;
  }
  return true;
}

// The URL before the names of the routes.
export function baseUrl() {
  const { target, endpoint } = connection();
  if (target === "local") return new URL("v2/local", document.baseURI).href;
  const trimmed = endpoint.trim().replace(/\/+$/, "");
  return /^https?:\/\//.test(trimmed) ? trimmed : `${RUNPOD}/${encodeURIComponent(trimmed)}`;
}

export async function call(method, route, body) {
  const { key } = connection();
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    const text = body === undefined ? undefined : JSON.stringify(body);
    answer = await fetch(`${baseUrl()}/${route}`, { method, headers, body: text, cache: "no-store" });
  } catch {
    throw new CallError("The endpoint does not answer. Check that it runs, and its address.", 0);
  }
  const text = await answer.text();
  let value = null;
  try {
    value = JSON.parse(text);
  } catch {
    if (answer.ok) throw new CallError("The endpoint's answer is not JSON.", answer.status);
  }
  if (answer.ok) return value;
  const reason = value?.error ?? value?.detail ?? text.slice(0, LONGEST_ERROR);
  const retryAfterMs = Number(answer.headers.get("Retry-After") ?? 0) * 1000;
  throw new CallError(messageOf(answer.status, reason), answer.status, retryAfterMs);
}

function messageOf(status, reason) {
  if (status === 401) return "The endpoint wants an API key, or another one.";
  if (status === 413) return `The request is too large: ${reason}`;
  if (status === 429) return `Too many jobs wait already: ${reason}`;
  return typeof reason === "string" && reason ? reason : `The endpoint answered with HTTP ${status}.`;
}

export async function listTemplates() {
  return bakedCatalog() ?? (await localCatalog("templates"));
}

export async function loadTemplate(name) {
  const baked = bakedCatalog();
  if (baked === null) return localCatalog(`templates/${encodeURIComponent(name)}`);
  return baked.templates.find((row) => row.name === name);
}

// RunPod has no route for templates, so a served page reads its own list also for RunPod.
async function localCatalog(route) {
  const answer = await fetchLocal(route);
  const value = await answer.json().catch(() => ({}));
  if (answer.ok) return value;
  const retryAfterMs = Number(answer.headers.get("Retry-After") ?? 0) * 1000;
  throw new CallError(messageOf(answer.status, value.error), answer.status, retryAfterMs);
}

// The text of this page as one file.
export async function servedPage() {
  return (await fetchLocal("page.html")).text();
}

async function fetchLocal(route) {
  const { target, key } = connection();
  const headers = target === "local" && key ? { Authorization: `Bearer ${key}` } : {};
  try {
    return await fetch(new URL(`v2/local/${route}`, document.baseURI), { headers, cache: "no-store" });
  } catch {
    throw new CallError("The endpoint does not answer. Check that it still runs.", 0);
  }
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
