import init, { Engine } from "./wgformer_web.js";

const at = (id) => document.getElementById(id);
let engine, model;

// What goes wrong is said in the page.
async function guarded(work) {
  at("error").textContent = "";
  try {
    return await work();
  } catch (error) {
    at("error").textContent = error.message ?? String(error);
  }
}
addEventListener("error", () => (at("error").textContent = "The engine stopped: load the page again. The browser's console says more."));

function row(table, cells, tag = "td") {
  const line = table.insertRow();
  for (const cell of cells) line.appendChild(document.createElement(tag)).textContent = cell;
}

const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

// Runs work with a button that stops it; others wait.
async function running(start, stop, work) {
  const control = new AbortController();
  const abort = () => control.abort();
  const buttons = document.querySelectorAll("button");
  const before = [...buttons].map((button) => button.disabled);
  buttons.forEach((button) => (button.disabled = true));
  if (stop) {
    at(stop).disabled = false;
    at(stop).addEventListener("click", abort);
  }
  await guarded(() => work(control.signal));
  if (stop) at(stop).removeEventListener("click", abort);
  buttons.forEach((button, index) => (button.disabled = before[index]));
  ready();
}

function ready() {
  const info = model?.info();
  at("generate-start").disabled = !info?.generates;
  at("embed-start").disabled = !info || info.generates;
  at("train-start").disabled = at("check-start").disabled = at("load").disabled = !engine;
  at("chat").disabled = !info?.chats;
}

function use(loaded) {
  model?.free();
  model = loaded;
  const { family, parameters, layers, width, vocabulary, context } = model.info();
  at("load-result").textContent = `${family}: ${parameters.toLocaleString()} parameters, ${layers} layers of ${width}, ${vocabulary} tokens, texts of up to ${context}`;
}

const load = (source) => running("load", "load-stop", async (signal) => {
  const bar = at("load-progress");
  bar.hidden = false;
  const began = performance.now();
  try {
    use(await engine.load(source, { signal }, ({ loaded, total }) => (bar.value = loaded / total)));
    at("load-result").textContent += `; loaded in ${((performance.now() - began) / 1000).toFixed(1)} s`;
  } finally {
    bar.hidden = true;
  }
});

at("load").addEventListener("click", () => load(at("address").value));
at("files").addEventListener("change", () => at("files").files.length && load(at("files").files));
at("forget").addEventListener("click", () => guarded(async () => {
  await caches.delete("wgformer");
  at("load-result").textContent = "Nothing is kept.";
}));

at("generate-start").addEventListener("click", () => running("generate-start", "generate-stop", async (signal) => {
  const out = at("generated");
  const text = at("prompt").value;
  const chat = at("chat").checked && !at("chat").disabled;
  out.textContent = chat ? "" : text;
  const began = performance.now();
  let first;
  const answer = await model.generate(
    chat ? [{ role: "user", content: text }] : text,
    { maxTokens: at("max-tokens").valueAsNumber, temperature: at("temperature").valueAsNumber, signal },
    (piece) => {
      first ??= performance.now() - began;
      out.textContent += piece;
    },
  );
  const seconds = (performance.now() - began) / 1000;
  out.textContent += `\n\n[${answer.tokens.length} tokens in ${seconds.toFixed(1)} s, the first after ${(first / 1000).toFixed(2)} s; ended by ${answer.finish}]`;
}));

at("embed-start").addEventListener("click", () => running("embed-start", undefined, async () => {
  const sentences = at("sentences").value.split("\n").filter((line) => line.trim());
  const vectors = await model.embed(sentences);
  const dot = (a, b) => a.reduce((sum, x, index) => sum + x * b[index], 0);
  const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const body = at("cosines").tBodies[0];
  body.replaceChildren();
  sentences.forEach((a, i) => sentences.slice(i + 1).forEach((b, j) => row(body, [cosine(vectors[i], vectors[i + 1 + j]).toFixed(3), a, b])));
}));

function draw(losses, steps) {
  const canvas = at("curve");
  const pen = canvas.getContext("2d");
  const top = Math.max(...losses, 0.1);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.beginPath();
  losses.forEach((loss, index) => pen.lineTo((index / Math.max(steps - 1, 1)) * canvas.width, canvas.height * (1 - loss / top)));
  pen.strokeStyle = "#37c";
  pen.lineWidth = 3;
  pen.stroke();
}

at("train-start").addEventListener("click", () => running("train-start", "train-stop", async (signal) => {
  const losses = [];
  const options = { steps: at("steps").valueAsNumber, layers: at("layers").valueAsNumber, width: at("width").valueAsNumber, signal };
  use(await engine.train(at("text").value, options, ({ step, steps, loss, tokensPerSecond }) => {
    losses.push(loss);
    draw(losses, steps);
    at("trained").textContent = `step ${step} of ${steps}: loss ${loss.toFixed(3)}, ${tokensPerSecond.toFixed(0)} tokens a second`;
  }));
  at("trained").textContent += ". Generate goes on with this model; its prompt may have characters of the text only.";
}));

at("check-start").addEventListener("click", () => running("check-start", undefined, async () => {
  const bar = at("check-progress");
  const [head, body] = [at("report").tHead, at("report").tBodies[0]];
  bar.hidden = false;
  head.replaceChildren();
  body.replaceChildren();
  at("checked").textContent = "Choosing cases …";
  try {
    const report = await engine.check(({ loaded, total, what }) => {
      bar.value = loaded / total;
      at("checked").textContent = what;
    });
    row(head, ["op", "inputs", "cases", "forward", "backward", ""], "th");
    for (const { op, dtype, cases, forward, backward, missed } of report.rows) {
      const words = missed.map((miss) => `MISSED ${miss.case}: ${miss.what}`).join("; ");
      row(body, [op, dtype, cases, forward[1].toExponential(1), backward[1].toExponential(1), words || (cases ? "ok" : "not run here")]);
    }
    at("checked").textContent = `${report.compared} cases compared, ${report.missed} missed. Errors are shares of a tensor's largest value.`;
  } finally {
    bar.hidden = true;
  }
}));

await guarded(async () => {
  await init();
  engine = await Engine.open();
  const info = engine.info();
  const subgroups = info.subgroups ? `of ${info.subgroups.join(" to ")}` : "none: slower sums";
  for (const line of [
    ["adapter", `${info.name || "not named by this browser"}${info.fallback ? " (computes on the CPU)" : ""}`],
    ["subgroups", subgroups],
    ["f16 in shaders", info.f16 ? "yes" : "no: f32, weights may be f16 still"],
    ["largest buffer", `${mebibytes(info.maxBufferBytes)}, ${mebibytes(info.maxBindingBytes)} of it in one binding`],
    ["storage buffers, invocations, workgroup memory", `${info.storageBindings}, ${info.maxInvocations}, ${info.workgroupMemory} bytes`],
  ]) row(at("info").tBodies[0], line);
  const wanted = new URLSearchParams(location.search).get("model");
  if (wanted) at("address").value = wanted;
});
ready();
