"use strict";
const byId = (id) => document.getElementById(id);
const colour = (share) => `rgba(31, 95, 168, ${Math.sqrt(share).toFixed(3)})`;

// Draws a head's probabilities, a square for each pair of tokens.
function draw(canvas, map, head, size) {
  const context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [map.keys * size, map.queries * size];
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  map.weights[head].forEach((weight, at) => {
    if (weight === 0) return;
    context.fillStyle = colour(weight / SCALE);
    context.fillRect((at % map.keys) * size, Math.floor(at / map.keys) * size, size, size);
  });
}

function pairAt(canvas, map, event) {
  const box = canvas.getBoundingClientRect();
  const key = Math.floor(((event.clientX - box.left) / box.width) * map.keys);
  const query = Math.floor(((event.clientY - box.top) / box.height) * map.queries);
  return [Math.min(Math.max(query, 0), map.queries - 1), Math.min(Math.max(key, 0), map.keys - 1)];
}

function say(map, head, query, key) {
  const weight = map.weights[head][query * map.keys + key] / SCALE;
  const [from, to] = [TOKENS[map.query_tokens][query], TOKENS[map.key_tokens][key]];
  byId("says").textContent =
    `${map.layer}, head ${head}: ${JSON.stringify(from)} (${query}) looks at ${JSON.stringify(to)} (${key}) with ${weight.toFixed(4)}`;
}

let shown = [0, 0];

// The tokens of the chosen head; pointing at one that looks colours those that it looks at.
function choose(layer, head) {
  shown = [layer, head];
  const map = MAPS[layer];
  byId("chosen").textContent = `${map.layer}, head ${head}`;
  draw(byId("large"), map, head, Math.max(4, Math.floor(640 / Math.max(map.keys, map.queries))));
  const row = (id, tokens) => {
    byId(id).replaceChildren(...tokens.map((token, at) => {
      const span = document.createElement("span");
      span.textContent = token;
      span.title = String(at);
      return span;
    }));
    return [...byId(id).children];
  };
  const queries = row("queries", TOKENS[map.query_tokens]);
  const keys = row("keys", TOKENS[map.key_tokens]);
  queries.forEach((span, query) => {
    span.addEventListener("pointerenter", () => {
      queries.forEach((other) => other.classList.toggle("looks", other === span));
      keys.forEach((other, key) => {
        const weight = map.weights[head][query * map.keys + key] / SCALE;
        other.style.background = colour(weight);
        other.title = weight.toFixed(4);
      });
    });
  });
}

MAPS.forEach((map, layer) => {
  const row = document.createElement("div");
  row.className = "layer";
  const name = document.createElement("span");
  name.textContent = map.layer;
  row.append(name);
  for (let head = 0; head < map.heads; head++) {
    const canvas = document.createElement("canvas");
    canvas.className = "head";
    draw(canvas, map, head, 1);
    canvas.addEventListener("pointermove", (event) => say(map, head, ...pairAt(canvas, map, event)));
    canvas.addEventListener("click", () => choose(layer, head));
    row.append(canvas);
  }
  byId("heads").append(row);
});
byId("large").addEventListener("pointermove", (event) => {
  const map = MAPS[shown[0]];
  say(map, shown[1], ...pairAt(byId("large"), map, event));
});
choose(0, 0);
