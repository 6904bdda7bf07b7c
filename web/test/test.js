// Runs what a page does and posts what came out, part by part; tests/browser.rs compares it with the native results.
import init, { Engine } from "../wgformer_web.js";

const post = (name, value) => fetch("/result", { method: "POST", body: JSON.stringify({ name, value }) });
const plan = await (await fetch("/models/plan.json")).json();
const message = async (work) => {
  try {
    return `no error but ${JSON.stringify(await work())}`;
  } catch (error) {
    return error.message;
  }
};
const requests = (name) => performance.getEntriesByType("resource").filter((entry) => entry.name.includes(name)).length;

async function ofPage(address) {
  // The page itself, by its buttons.
  const frame = document.body.appendChild(document.createElement("iframe"));
  frame.src = `/?model=${encodeURIComponent(address)}`;
  await new Promise((resolve) => (frame.onload = resolve));
  const at = (id) => frame.contentDocument.getElementById(id);
  const until = async (done) => {
    for (let tries = 0; !done(); tries++) {
      const error = at("error").textContent;
      if (error || tries > 1200) throw new Error(`the page says: ${error || "nothing"}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const press = async (id) => {
    await until(() => !at(id).disabled);
    at(id).click();
    await until(() => !at(id).disabled);
  };
  await press("load");
  at("prompt").value = plan.prompt;
  at("max-tokens").value = 4;
  await press("generate-start");
  const generated = at("generated").textContent;
  at("text").value = plan.text;
  at("steps").value = 2;
  await press("train-start");
  const said = { model: at("load-result").textContent, generated, trained: at("trained").textContent, error: at("error").textContent };
  frame.remove();
  return said;
}

const parts = {
  async decoder(engine) {
    const model = await engine.load("/models/decoder/");
    const pieces = [];
    const answer = await model.generate(plan.prompt, { maxTokens: plan.tokens }, (text) => pieces.push(text));
    const control = new AbortController();
    const stopped = await model.generate(plan.prompt, { maxTokens: plan.tokens, signal: control.signal }, () => control.abort());
    return { tokens: answer.tokens, text: answer.text, pieces: pieces.join(""), finish: answer.finish, stopped: stopped.tokens.length, info: model.info() };
  },
  async visits(engine) {
    // The parts of the file are kept: another visit asks only whether it is the same.
    performance.clearResourceTimings();
    const progress = [];
    const model = await engine.load(new URL("/models/decoder", location.href).href, {}, (now) => progress.push(now));
    const { tokens } = await model.generate(plan.prompt, { maxTokens: plan.tokens });
    return { tokens, requests: requests("model.safetensors"), last: progress.at(-1), total: progress.at(-1).total };
  },
  async files(engine) {
    const names = ["config.json", "tokenizer.json", "model.safetensors"];
    const file = async (name) => new File([await (await fetch(`/models/decoder/${name}`)).blob()], name);
    const model = await engine.load(await Promise.all(names.map(file)), { dtype: "f16" });
    return (await model.generate(plan.prompt, { maxTokens: 2 })).tokens.length;
  },
  async encoder(engine) {
    const model = await engine.load("/models/encoder/");
    return (await model.embed(plan.sentences)).map((vector) => [...vector]);
  },
  async training(engine) {
    const losses = [];
    const model = await engine.train(plan.text, plan.training, ({ loss }) => losses.push(loss));
    const { tokens } = await model.generate(plan.text.slice(0, 8), { maxTokens: plan.tokens });
    return { losses, tokens };
  },
  async errors(engine) {
    const model = await engine.load("/models/decoder/");
    const busy = model.generate(plan.prompt, { maxTokens: plan.tokens });
    const during = await message(() => model.generate(plan.prompt));
    await busy;
    return {
      missing: await message(() => engine.load("/models/nothing.gguf")),
      damaged: await message(() => engine.load("/models/damaged.gguf")),
      option: await message(() => model.generate(plan.prompt, { maxtokens: 1 })),
      long: await message(() => model.generate("a".repeat(1000))),
      side: await message(() => model.embed(["a"])),
      empty: await message(() => engine.train("", {})),
      during,
    };
  },
  page: () => ofPage("/models/decoder/"),
  async check(engine) {
    return engine.check();
  },
  async gguf(engine) {
    if (!plan.gguf) return null;
    const began = performance.now();
    const model = await engine.load("/gguf/" + plan.gguf);
    const loaded = performance.now();
    let first;
    const { tokens, text } = await model.generate(plan.question, { maxTokens: plan.ggufTokens }, () => (first ??= performance.now()));
    const again = performance.now();
    let second;
    await model.generate(plan.question, { maxTokens: 2 }, () => (second ??= performance.now()));
    return { tokens, text, loadSeconds: (loaded - began) / 1000, firstSeconds: (first - loaded) / 1000, warmSeconds: (second - again) / 1000 };
  },
};

try {
  await init();
  const began = performance.now();
  const engine = await Engine.open();
  await post("info", engine.info());
  for (const [name, part] of Object.entries(parts)) {
    let value;
    try {
      value = await part(engine);
    } catch (error) {
      value = { failed: error.message ?? String(error) };
    }
    await post(name, value);
  }
  await post("done", (performance.now() - began) / 1000);
} catch (error) {
  await post("done", { failed: error.message ?? String(error) });
}
