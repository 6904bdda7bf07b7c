// Where models come from: an address, read in ranges and kept for the next visit, or files that the user chose.

const PART = 4 << 20;
const CACHE = "wgformer";

// {name, length, isGguf, file(name), read(start, end)}
export async function open(source, small) {
  if (typeof source === "string") return openAddress(source, small);
  const files = source instanceof File ? [source] : [...source];
  const named = (end) => files.find((file) => file.name.endsWith(end));
  const gguf = named(".gguf");
  const weights = gguf ?? named(".safetensors");
  if (!weights) throw new Error("choose a GGUF file, or config.json, tokenizer.json and model.safetensors together");
  const texts = new Map();
  for (const name of gguf ? [] : small) {
    // A folder that was chosen gives paths, files give names.
    const file = files.find((file) => (file.webkitRelativePath.split("/").slice(1).join("/") || file.name) === name);
    if (file) texts.set(name, await file.text());
  }
  return opened(weights.name, weights.size, !!gguf, texts, blobReader(weights));
}

async function openAddress(address, small) {
  const url = new URL(address, location.href);
  const isGguf = url.pathname.endsWith(".gguf");
  if (isGguf) {
    const { length, read } = await openRemote(url);
    return opened(url.href, length, true, new Map(), read);
  }
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  const [texts, weights] = await Promise.all([smallFiles(url, small), openRemote(new URL("model.safetensors", url))]);
  return opened(url.href, weights.length, false, texts, weights.read);
}

function opened(name, length, isGguf, texts, read) {
  return { name, length, isGguf, file: (name) => texts.get(name), read };
}

async function smallFiles(folder, names) {
  const texts = new Map();
  await Promise.all(names.map(async (name) => {
    const response = await got(new URL(name, folder));
    if (response.ok) texts.set(name, await response.text());
    else if (response.status !== 404) throw new Error(`${response.url} cannot be read: ${response.status} ${response.statusText}`);
  }));
  return texts;
}

async function got(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    throw new Error(`${url} cannot be read (${error.message}): is it right, is there a network, and may this page read it (CORS)?`);
  }
}

function blobReader(blob) {
  return async (start, end) => new Uint8Array(await blob.slice(start, end).arrayBuffer());
}

// A file of a server, in parts that are kept. A server that knows no ranges sends it whole.
async function openRemote(url) {
  const cache = await globalThis.caches?.open(CACHE).catch(() => undefined);
  const key = (what) => Object.assign(new URL(url), { search: `?${url.search.slice(1)}&wgformer=${what}` }).href;
  const kept = await (await cache?.match(key("file")))?.json();
  let response;
  try {
    response = await got(url, { headers: { Range: "bytes=0-0" }, cache: "no-store" });
  } catch (error) {
    // Without a network what was kept will do.
    if (!kept) throw error;
    return { length: kept.length, read: partReader(url, kept.length, cache, key) };
  }
  if (!response.ok) throw new Error(`${url} cannot be read: ${response.status} ${response.statusText}`);
  const total = Number(response.headers.get("Content-Range")?.split("/")[1]);
  if (response.status !== 206 || !total) {
    // Content-Range may be hidden from pages of other sites.
    const whole = response.status === 206 ? await got(url) : response;
    const blob = await whole.blob();
    return { length: blob.size, read: blobReader(blob) };
  }
  const now = { length: total, version: response.headers.get("ETag") ?? response.headers.get("Last-Modified") };
  if (!kept || kept.length !== now.length || kept.version !== now.version) {
    for (let part = 0; kept && part * PART < kept.length; part++) await cache.delete(key(part));
    await keep(cache, key("file"), JSON.stringify(now));
  }
  return { length: total, read: partReader(url, total, cache, key) };
}

function partReader(url, length, cache, key) {
  let last = { number: -1, bytes: undefined };
  const load = async (number) => {
    if (last.number === number) return last.bytes;
    const [first, end] = [number * PART, Math.min((number + 1) * PART, length)];
    const there = await cache?.match(key(number));
    let bytes = there && new Uint8Array(await there.arrayBuffer());
    if (bytes?.length !== end - first) {
      const response = await got(url, { headers: { Range: `bytes=${first}-${end - 1}` }, cache: "no-store" });
      if (response.status !== 206) throw new Error(`${url} cannot be read any more: ${response.status} ${response.statusText}`);
      bytes = new Uint8Array(await response.arrayBuffer());
      await keep(cache, key(number), bytes);
    }
    last = { number, bytes };
    return bytes;
  };
  return async (start, end) => {
    const all = new Uint8Array(end - start);
    for (let at = start; at < end; ) {
      const number = Math.floor(at / PART);
      const part = (await load(number)).subarray(at - number * PART, end - number * PART);
      if (part.length === 0) throw new Error(`${url} ended early: load it again`);
      all.set(part, at - start);
      at += part.length;
    }
    return all;
  };
}

// A browser without room for it loads it again at the next visit.
async function keep(cache, key, body) {
  try {
    await cache?.put(key, new Response(body));
  } catch (error) {
    console.warn(`wgformer keeps no copy of ${key}: ${error.message}`);
  }
}

let went = performance.now();

// Lets the page draw and listen, where it could not for a moment.
export async function pause() {
  if (performance.now() - went < 12) return;
  await new Promise((resolve) => setTimeout(resolve));
  went = performance.now();
}

const two = (number) => String(number).padStart(2, "0");

// The time in the forms that templates of conversations ask for.
export function strftime(format) {
  const now = new Date();
  const word = (options) => now.toLocaleDateString("en", options);
  const parts = {
    Y: () => now.getFullYear(), m: () => two(now.getMonth() + 1), d: () => two(now.getDate()),
    H: () => two(now.getHours()), M: () => two(now.getMinutes()), S: () => two(now.getSeconds()),
    b: () => word({ month: "short" }), B: () => word({ month: "long" }), a: () => word({ weekday: "short" }), A: () => word({ weekday: "long" }),
    "%": () => "%",
  };
  return format.replace(/%([a-zA-Z%])/g, (whole, letter) => parts[letter]?.() ?? whole);
}
