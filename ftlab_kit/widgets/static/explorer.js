// The graph explorer: draws what Python has laid out, and sends no request.
// Zooming moves nodes apart; shapes and text keep their size. All text is inserted as text.
const SVG = "http://www.w3.org/2000/svg"; // a name, never fetched
const SVG_TAGS = new Set(["svg", "g", "path", "text", "title"]);
const [LETTER, LINE, FEW, MIN_ZOOM, MAX_ZOOM] = [6.5, 15, 12, 5, 400];
const WAYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

const set = (part, attributes) => Object.entries(attributes).forEach(([name, value]) => part.setAttribute(name, value));

function make(tag, attributes = {}, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  set(node, attributes);
  node.append(...children);
  return node;
}

const overlap = (a, b) =>
  Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
const least = (all, cost) => all.reduce((best, other) => (cost(other) < cost(best) ? other : best));
const covered = (box, boxes) => boxes.reduce((sum, other) => sum + overlap(box, other), 0);

function render({ model, el }) {
  const get = (name) => model.get(name);
  const send = (name, value) => (model.set(name, value), model.save_changes());
  const map = make("svg", { class: "map", role: "application", tabindex: "-1" });
  const panel = make("aside", { "aria-label": "the selected entity", tabindex: "0" });
  const [status, alert] = ["status", "alert"].map((role) => make("p", { role }));
  const legend = make("div", { class: "row" });
  const find = make("input", { "aria-label": "find an entity", placeholder: "find an entity" });
  const button = (name, title, onclick) =>
    Object.assign(make("button", { type: "button", title, "aria-label": title }, name), { onclick });
  const tools = make("div", { class: "row" }, find,
    button("Expand", "expand the selected entity", () => expand(get("selected"))),
    button("−", "zoom out", () => zoom(0.8)),
    button("+", "zoom in", () => zoom(1.25)),
    button("Fit", "show the whole graph", fit));
  const body = make("div", { class: "body" }, map, panel);
  // or the front end's own shortcuts would take Enter
  el.append(make("div", { class: "ftlab-graph", "data-lm-suppress-shortcuts": "" }, tools, legend, body, status, alert));

  let nodes = [], edges = [], byId = new Map(), at = {}, held = null;
  let view = { x: 0, y: 0, k: 100 }, [width, height] = [600, 470];
  const spot = (id) => [width / 2 + (at[id][0] - view.x) * view.k, height / 2 + (at[id][1] - view.y) * view.k];
  const focused = () => byId.get(map.contains(document.activeElement) && document.activeElement.dataset.id);

  function build() {
    const isHere = focused(), kinds = get("kinds");
    at = { ...get("positions") };
    edges = get("edges").map((edge) => {
      const [wide, line, heads] = ["wide", "line", "heads"].map((name) => make("path", { class: name }));
      const text = make("text", {}, edge.label);
      const g = make("g", {}, make("title", {}, edge.title), wide, line, heads, text);
      return { ...edge, wide, line, heads, text, g };
    });
    nodes = get("nodes").map((node) => {
      const kind = kinds[node.kind], text = make("text", {}, node.short);
      const sign = make("path", { d: kind.path, fill: kind.colour, transform: `scale(${node.size / 10})` });
      const ring = make("path", { d: kind.path, class: "ring", transform: `scale(${node.size / 10 + 0.3})` });
      const g = make("g", { tabindex: "0", role: "button", "aria-label": node.label, "data-id": node.id });
      g.append(make("title", {}, node.label), sign, ring, text);
      g.onfocus = () => node.id === get("selected") || send("selected", node.id);
      g.ondblclick = () => expand(node.id);
      return { ...node, kind, g, text };
    });
    byId = new Map(nodes.map((node) => [node.id, node]));
    map.replaceChildren(...[...edges, ...nodes].map(({ g }) => g));
    map.setAttribute("aria-label", get("alt_text"));
    legend.replaceChildren(...kinds.map(({ path, colour, name }) => make("span", {},
      make("svg", { viewBox: "-14 -14 28 28", "aria-hidden": "true" }, make("path", { d: path, fill: colour })), name)));
    const isIn = ([x, y]) => x > 0 && y > 0 && x < width && y < height;
    nodes.every(({ id }) => isIn(spot(id))) ? draw() : fit();
    show();
    if (isHere) byId.get(get("selected"))?.g.focus();
  }

  function draw() {
    const chosen = get("selected"), near = new Set([chosen]), boxes = [];
    for (const node of nodes) {
      const [x, y] = (node.spot = spot(node.id));
      node.ways = [];
      set(node.g, { transform: `translate(${x},${y})`, class: node.id === chosen ? "node on" : "node" });
      boxes.push([x - node.size, y - node.size, x + node.size, y + node.size]);
    }
    for (const edge of edges) {
      edge.isOn = edge.ends.includes(chosen);
      if (edge.isOn) edge.ends.forEach((id) => near.add(id));
      stretch(edge, ...edge.ends.map((id) => byId.get(id)));
    }
    // the selected entity and its neighbours are the first to get room for a name
    const order = [...nodes].sort((a, b) => near.has(b.id) - near.has(a.id));
    for (const node of order) name(node, boxes, node.id === chosen);
    for (const edge of edges) relate(edge, boxes);
  }

  function stretch(edge, a, b) {
    const [[x, y], [x2, y2]] = [a.spot, b.spot];
    const long = Math.hypot(x2 - x, y2 - y) || 1, u = [(x2 - x) / long, (y2 - y) / long];
    a.ways.push(u);
    b.ways.push([-u[0], -u[1]]);
    const rim = ({ spot: [x, y], size }, [ux, uy]) => [x + (size + 4) * ux, y + (size + 4) * uy];
    const [from, to] = [rim(a, u), rim(b, b.ways.at(-1))];
    const wing = ([x, y], [ux, uy], side) => [x - 6 * ux + side * uy, y - 6 * uy - side * ux];
    const head = (tip, way) => `M${wing(tip, way, 3)}L${tip}L${wing(tip, way, -3)}`;
    for (const part of [edge.line, edge.wide]) part.setAttribute("d", `M${from}L${to}`);
    set(edge.heads, { d: (edge.forth ? head(to, u) : "") + (edge.back ? head(from, b.ways.at(-1)) : "") });
    set(edge.g, { class: `edge${edge.isOn ? " on" : ""}${edge.ended ? " ended" : ""}` });
    edge.middle = [(x + x2) / 2, (y + y2) / 2];
  }

  // a name is drawn on the side of its shape where it covers least, or not at all
  function name(node, boxes, isSure) {
    const [x, y] = node.spot, wide = LETTER * node.short.length, gap = node.size + 5;
    const sides = Object.values(WAYS).map(([ux, uy]) => {
      const left = x + ux * gap - (wide * (1 - ux)) / 2, top = y + uy * (gap + LINE / 2 - 2) - LINE / 2;
      const box = [left, top, left + wide, top + LINE], area = covered(box, boxes);
      const crossed = node.ways.filter(([wx, wy]) => wx * ux + wy * uy > 0.75).length;
      return { ux, box, area, cost: area + 80 * crossed + (left < 0 || box[2] > width ? 1e4 : 0) };
    });
    const { ux, box, area } = least(sides, ({ cost }) => cost);
    const isShown = isSure || area < 0.15 * wide * LINE;
    const anchor = ux ? (ux > 0 ? "start" : "end") : "middle";
    set(node.text, { x: ux * gap, y: box[3] - 4 - y, "text-anchor": anchor, display: isShown ? "inline" : "none" });
    if (isShown) boxes.push(box);
  }

  function relate(edge, boxes) {
    const [x, y] = edge.middle, wide = 5.4 * edge.label.length;
    const box = [x - wide / 2, y - 6, x + wide / 2, y + 6];
    const isShown = (edge.isOn || edges.length <= FEW) && covered(box, boxes) < 2.4 * wide;
    set(edge.text, { x, y: y + 3.5, display: isShown ? "inline" : "none" });
    if (isShown) boxes.push(box);
  }

  function look(x, y, k) {
    view = { x, y, k };
    draw();
  }

  function fit() {
    const [[left, right], [top, low]] = [0, 1].map((axis) => {
      const all = nodes.map(({ id }) => at[id][axis]);
      return [Math.min(...all), Math.max(...all)];
    });
    const k = Math.min((width - 170) / (right - left || 1), (height - 70) / (low - top || 1), 150);
    look((left + right) / 2, (top + low) / 2, Math.max(k, MIN_ZOOM));
  }

  function zoom(factor, x = width / 2, y = height / 2) {
    const k = view.k * factor, by = 1 / view.k - 1 / k;
    if (k > MIN_ZOOM && k < MAX_ZOOM) look(view.x + (x - width / 2) * by, view.y + (y - height / 2) * by, k);
  }

  function expand(id) {
    status.textContent = id ? `loading what is around ${byId.get(id)?.name ?? id} …` : "select an entity first";
    if (id) send("expand", id);
  }

  function show() {
    const node = byId.get(get("selected"));
    panel.scrollTop = 0;
    status.textContent = node ? `${node.label}. Enter shows what is around it.` : get("status");
    if (!node) return panel.replaceChildren(make("p", {}, get("alt_text")));
    const about = get("facts").filter((fact) => fact.ends.includes(node.id));
    const item = ({ text, where }) => make("li", {}, text, make("small", {}, where));
    const list = (title, some) => (some.length ? [make("h4", {}, title), make("ul", {}, ...some.map(item))] : []);
    const pairs = node.attributes.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]);
    panel.replaceChildren(
      make("h3", {}, node.name), make("small", {}, node.kind.name), make("p", {}, node.summary),
      make("dl", {}, ...pairs), make("small", {}, node.sources),
      ...list("facts", about.filter(({ ended }) => !ended)), ...list("ended", about.filter(({ ended }) => ended)));
  }

  function step([ux, uy]) {
    const from = focused() ?? nodes[0], [x, y] = from.spot;
    const cost = ({ spot: [x2, y2] }) => {
      const along = (x2 - x) * ux + (y2 - y) * uy;
      return along > 0 ? ((x2 - x) ** 2 + (y2 - y) ** 2) / along : Infinity;
    };
    least([from, ...nodes], cost).g.focus();
  }

  map.onkeydown = (event) => {
    const acts = { Escape: fit, "+": () => zoom(1.25), "-": () => zoom(0.8) };
    if (focused()) acts.Enter = () => expand(focused().id);
    if (event.key in WAYS) acts[event.key] = () => step(WAYS[event.key]);
    if (!acts[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    acts[event.key]();
  };

  map.onwheel = (event) => {
    if (!map.contains(document.activeElement)) return; // let the page scroll
    event.preventDefault();
    const { left, top } = map.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 500), event.clientX - left, event.clientY - top);
  };

  map.onpointerdown = (event) => {
    const g = event.target.closest(".node") ?? map, { clientX: x, clientY: y } = event;
    g.setPointerCapture(event.pointerId);
    g.focus({ preventScroll: true });
    event.preventDefault();
    held = { id: g.dataset.id, x, y };
  };
  map.onpointermove = ({ clientX: x, clientY: y }) => {
    if (!held) return;
    const [dx, dy] = [(x - held.x) / view.k, (y - held.y) / view.k];
    if (held.id) at[held.id] = [at[held.id][0] + dx, at[held.id][1] + dy];
    held = { id: held.id, x, y, isMoved: true };
    held.id ? draw() : look(view.x - dx, view.y - dy, view.k);
  };
  map.onpointerup = map.onpointercancel = () => {
    if (held?.isMoved && held.id) send("positions", { ...at });
    held = null;
  };

  find.onkeydown = ({ key }) => {
    const query = find.value.trim().toLowerCase();
    if (key !== "Enter" || !query) return;
    const match = (test) => nodes.find((node) => test(node.name.toLowerCase()));
    const node = match((name) => name === query) ?? match((name) => name.includes(query));
    node ? node.g.focus() : expand(find.value.trim());
  };

  const listeners = {
    "change:nodes": build,
    "change:positions": () => ((at = { ...get("positions") }), draw()),
    "change:selected": () => (draw(), show()),
    "change:error": () => (alert.textContent = get("error")),
    "change:expand": () => get("expand") || (status.textContent = get("error") ? "" : get("status")),
  };
  // anywidget removes these listeners itself
  for (const [event, act] of Object.entries(listeners)) model.on(event, act);
  const watch = new ResizeObserver(() => {
    const box = map.getBoundingClientRect(), isFirst = !nodes.length;
    if (!box.width || !box.height) return;
    [width, height] = [box.width, box.height];
    isFirst ? (build(), fit()) : draw();
  });
  watch.observe(map);
  return () => watch.disconnect();
}

export default { render };
