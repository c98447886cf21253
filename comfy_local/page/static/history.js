// Keeps what was made, in this browser only: requests, small pictures, and the newest results.

const DATABASE = "comfy-worker";
const STORE = "jobs";
const MOST_ENTRIES = 60;
const MOST_RESULTS = 20;
const LARGEST_INPUT = 4_000_000;
const LARGEST_RESULT = 12_000_000;
const THUMB_SIZE = 192;

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function openStore(mode) {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "id" });
  const database = await settled(opening);
  return database.transaction(STORE, mode).objectStore(STORE);
}

// Newest first. Without storage (a private window) there is no history.
export async function historyEntries() {
  try {
    const entries = await settled((await openStore("readonly")).getAll());
    return entries.sort((a, b) => b.created - a.created);
  } catch {
    return [];
  }
}

export async function addToHistory(entry) {
  const fits = JSON.stringify(entry.input).length <= LARGEST_INPUT;
  const kept = fits ? { ...entry } : { ...entry, input: withoutFiles(entry.input) };
  if (JSON.stringify(kept.result).length > LARGEST_RESULT) kept.result = null;
  try {
    await put(kept);
    const entries = await historyEntries();
    const tooMany = entries.slice(MOST_RESULTS, MOST_ENTRIES).filter((old) => old.result);
    for (const old of tooMany) await put({ ...old, result: null });
    for (const { id } of entries.slice(MOST_ENTRIES)) await removeFromHistory(id);
  } catch {
    return false;
  }
  return true;
}

async function put(entry) {
  await settled((await openStore("readwrite")).put(entry));
}

export async function removeFromHistory(id) {
  await settled((await openStore("readwrite")).delete(id));
}

export async function clearHistory() {
  await settled((await openStore("readwrite")).clear());
}

// Drops the long texts of a request: they are files.
function withoutFiles(value) {
  if (typeof value === "string") return value.length > 10_000 ? undefined : value;
  if (Array.isArray(value)) return value.map(withoutFiles).filter((item) => item !== undefined);
  if (value === null || typeof value !== "object") return value;
  const kept = Object.entries(value).map(([key, inner]) => [key, withoutFiles(inner)]);
  return Object.fromEntries(kept.filter(([, inner]) => inner !== undefined));
}

// A small JPEG of a picture or of a video's first frame; null if the browser cannot draw it.
export async function thumbnailOf(url, mimeType) {
  try {
    const source = mimeType.startsWith("video/") ? await firstFrame(url) : await loadedImage(url);
    const width = source.videoWidth ?? source.naturalWidth;
    const height = source.videoHeight ?? source.naturalHeight;
    const scale = THUMB_SIZE / Math.min(width, height);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = THUMB_SIZE;
    const drawn = [(THUMB_SIZE - width * scale) / 2, (THUMB_SIZE - height * scale) / 2];
    canvas.getContext("2d").drawImage(source, ...drawn, width * scale, height * scale);
    return canvas.toDataURL("image/jpeg", 0.82);
  } catch {
    return null; // a link to a bucket that lets no page read it
  }
}

async function loadedImage(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

function firstFrame(url) {
  const video = document.createElement("video");
  video.muted = true;
  video.preload = "auto";
  return new Promise((resolve, reject) => {
    video.addEventListener("loadeddata", () => resolve(video));
    video.addEventListener("error", reject);
    video.src = url;
  });
}
