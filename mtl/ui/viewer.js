// The photo at full sharpness with the lesion drawn over it. The probability map comes with the answer, so that
// threshold, opacity, zoom and brush act here, at once; the server measures again when one is let go.
const $ = (selector) => element.querySelector(selector);
const named = (name) => $(`[name=${name}]`);
const { t } = window.mtl;
const [stage, image, canvas, wait] = [$(".stage"), $("img"), $("canvas"), $(".wait")];
const context = canvas.getContext("2d");
const CYAN = [0, 229, 255], EDGE = "rgba(5, 30, 40, 0.85)", AMBER = [255, 176, 32];
const OUTSIDE = -30, EDIT_PX = 1024, KEPT_PHOTOS = 6, MAX_UNDO = 20;

let view = null; // the answer that is shown
let map = null; // { data, width, height, box: [top, left, height, width] of the photo, level }
let heat = null; // the same, of where the model looked
let edit = null; // canvas with the drawn mask, white on black
let fresh = false; // whether the first of the undo list is the model's own mask
let mode = "", undo = [], points = [], cursor = null;
let zoom = { scale: 1, x: 0, y: 0 }, fitted = true;
const photos = new Map(); // id -> data URL of the last few

const key = (v) => v.id; // numbers are given again when photos are removed
const floats = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
const toMap = (text, [height, width], box, level) => ({ data: floats(text), width, height, box, level });
const logit = (p) => Math.log(p / (1 - p));
const threshold = () => Number(named("threshold").value) / 100;
const call = (name, extra = {}) => server[name]({ token: view.token, number: view.number, ...extra });

// ---- what is shown

async function show() {
  const next = JSON.parse(props.value || "{}");
  if (!next.number) {
    [view, map, edit, heat] = [null, null, null, null];
    image.removeAttribute("src");
    image.alt = "";
    setMode("");
    element.querySelector(".mtl-viewer").classList.add("idle");
    return draw();
  }
  const other = !view || key(view) !== key(next);
  view = next;
  element.querySelector(".mtl-viewer").classList.toggle("idle", !next.logits);
  image.alt = next.alt;
  stage.setAttribute("aria-label", next.alt);
  if (other) {
    [edit, heat, undo, points, fresh] = [null, null, [], [], false];
    setMode(mode === "split" && next.logits ? mode : "");
    image.style.visibility = canvas.style.visibility = "hidden";
  }
  named("threshold").value = Math.round(100 * next.threshold);
  named("drop").hidden = !next.scaled;
  named("threshold").disabled = next.corrected; // cutting the map again would lose what was drawn
  map = next.logits ? toMap(next.logits, next.map_size, next.box, 0) : null;
  if (other) await loadPhoto(next);
  if (view !== next) return; // another photo was chosen meanwhile
  // What was drawn while this answer was on its way is sent next.
  if (!next.corrected && !undo.length) edit = null;
  else if (next.corrected && !edit) edit = await maskCanvas((await call("mask")).url);
  draw();
}

async function loadPhoto(wanted) {
  if (!photos.has(key(wanted))) {
    wait.textContent = t("Loading the photo");
    wait.hidden = false;
    const answer = await call("photo");
    photos.set(key(wanted), answer.url);
    if (photos.size > KEPT_PHOTOS) photos.delete(photos.keys().next().value);
    if (view !== wanted && key(view ?? {}) !== key(wanted)) return;
    if (answer.problem) return void (wait.textContent = answer.problem);
  }
  image.src = photos.get(key(wanted)) || "";
  await image.decode().catch(() => {});
  wait.hidden = true;
  image.style.visibility = canvas.style.visibility = "visible";
  fit();
}

async function maskCanvas(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  return editCanvas((context) => context.drawImage(picture, 0, 0, context.canvas.width, context.canvas.height));
}

function editCanvas(paint) {
  const made = document.createElement("canvas");
  const scale = Math.min(1, EDIT_PX / Math.max(view.width, view.height));
  made.width = Math.max(1, Math.round(view.width * scale));
  made.height = Math.max(1, Math.round(view.height * scale));
  const context = made.getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, made.width, made.height);
  paint(context);
  return made;
}

// ---- geometry: the photo's pixels are view.width x view.height; the stage shows them at zoom.scale from (x, y)

function fit() {
  if (!view) return;
  zoom.scale = Math.min(stage.clientWidth / view.width, stage.clientHeight / view.height);
  zoom.x = (stage.clientWidth - view.width * zoom.scale) / 2;
  zoom.y = (stage.clientHeight - view.height * zoom.scale) / 2;
  fitted = true;
  draw();
}

function zoomBy(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  if (!view) return;
  const smallest = Math.min(stage.clientWidth / view.width, stage.clientHeight / view.height);
  const scale = Math.min(Math.max(zoom.scale * factor, smallest), Math.max(8, smallest));
  if (scale <= smallest * 1.001) return fit();
  zoom.x = x - ((x - zoom.x) * scale) / zoom.scale;
  zoom.y = y - ((y - zoom.y) * scale) / zoom.scale;
  zoom.scale = scale;
  fitted = false;
  draw();
}

const onStage = (event) => {
  const frame = stage.getBoundingClientRect();
  return [event.clientX - frame.left - stage.clientLeft, event.clientY - frame.top - stage.clientTop];
};
const onPhoto = ([x, y]) => [(x - zoom.x) / zoom.scale, (y - zoom.y) / zoom.scale];

/** What `map` says at each of the stage's pixels; half-pixel aligned and bilinear, as the server enlarges it. */
function sample(map, width, height) {
  const field = new Float32Array(width * height).fill(OUTSIDE);
  const [top, left, boxHeight, boxWidth] = map.box;
  const place = (pixel, offset, from, length, cells) => {
    const at = ((pixel + 0.5 - offset) / zoom.scale - from) / length;
    if (at < 0 || at > 1) return null;
    const cell = Math.min(Math.max(at * cells - 0.5, 0), cells - 1);
    const low = Math.min(Math.floor(cell), Math.max(cells - 2, 0));
    return [low, Math.min(low + 1, cells - 1), cell - low];
  };
  const columns = Array.from({ length: width }, (_, x) => place(x, zoom.x, left, boxWidth, map.width));
  for (let y = 0; y < height; y++) {
    const row = place(y, zoom.y, top, boxHeight, map.height);
    if (!row) continue;
    const [a, b, v] = [row[0] * map.width, row[1] * map.width, row[2]];
    for (let x = 0; x < width; x++) {
      const column = columns[x];
      if (!column) continue;
      const [l, r, u] = column;
      const upper = map.data[a + l] * (1 - u) + map.data[a + r] * u;
      const lower = map.data[b + l] * (1 - u) + map.data[b + r] * u;
      field[y * width + x] = upper * (1 - v) + lower * v;
    }
  }
  return field;
}

// ---- drawing

let asked = false;
function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; paint(); });
}

function paint() {
  const [width, height] = [stage.clientWidth, stage.clientHeight];
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  context.setTransform(density, 0, 0, density, 0, 0);
  named("threshold").nextElementSibling.textContent = `${named("threshold").value} %`;
  if (!view || !width) return;
  image.style.transform = `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`;
  image.style.width = `${view.width}px`;
  image.style.height = `${view.height}px`;
  canvas.style.clipPath = mode === "split" ? `inset(0 ${100 - splitAt()}% 0 0)` : "";
  if (mode === "heat" && heat) paintField(sample(heat, width, height), width, height, AMBER, (value) => value * 0.75);
  else if (named("overlay").checked && map) paintLesion(width, height);
  if (mode === "split") paintLine([[splitX(), 0], [splitX(), height]], "white", 3);
  if (mode === "ruler") paintRuler();
  if (mode === "brush" && cursor) paintBrush();
}

const splitX = () => zoom.x + (view.width * zoom.scale * Number(named("edge").value)) / 100;
const splitAt = () => (100 * (splitX() + 2)) / stage.clientWidth;

function paintLesion(width, height) {
  const shown = edit ? editMap() : { ...map, level: logit(threshold()) };
  const field = sample(shown, width, height);
  const style = named("style").value;
  const opacity = Number(named("opacity").value) / 100;
  if (style !== "contour") paintField(field, width, height, CYAN, (value) => (value >= shown.level ? opacity : 0));
  if (style !== "fill") {
    const path = contour(field, width, height, shown.level);
    context.lineJoin = context.lineCap = "round";
    for (const [colour, line] of [[EDGE, 4], [`rgb(${CYAN})`, 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.stroke(path);
    }
  }
  if (view.lesions.length > 1 && !(edit && mode === "brush")) view.lesions.forEach(paintNumber);
}

function paintField(field, width, height, [red, green, blue], alpha) {
  const picture = new ImageData(width, height);
  for (let i = 0; i < field.length; i++) {
    const a = field[i] === OUTSIDE ? 0 : alpha(field[i]);
    if (a > 0) picture.data.set([red, green, blue, 255 * a], 4 * i);
  }
  const layer = new OffscreenCanvas(width, height);
  layer.getContext("2d").putImageData(picture, 0, 0);
  context.drawImage(layer, 0, 0);
}

/** Marching squares: where `field` crosses `level`, in stage pixels; not along the photo's own edge. */
function contour(field, width, height, level) {
  const path = new Path2D();
  for (let y = 0; y + 1 < height; y++) {
    for (let x = 0; x + 1 < width; x++) {
      const i = y * width + x;
      const corners = [field[i], field[i + 1], field[i + width + 1], field[i + width]];
      const inside = corners.filter((value) => value >= level).length;
      if (inside === 0 || inside === 4 || corners.includes(OUTSIDE)) continue;
      const at = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
      const crossings = [];
      for (let side = 0; side < 4; side++) {
        const [a, b] = [corners[side], corners[(side + 1) % 4]];
        if (a >= level === b >= level) continue;
        const u = (level - a) / (b - a), [p, q] = [at[side], at[(side + 1) % 4]];
        crossings.push([p[0] + u * (q[0] - p[0]) + 0.5, p[1] + u * (q[1] - p[1]) + 0.5]);
      }
      for (let pair = 0; pair + 1 < crossings.length; pair += 2) {
        path.moveTo(...crossings[pair]);
        path.lineTo(...crossings[pair + 1]);
      }
    }
  }
  return path;
}

function paintNumber({ number, top, left, right }) {
  const [x, y] = [zoom.x + ((left + right) / 2) * zoom.scale, zoom.y + top * zoom.scale];
  context.font = "600 16px system-ui, sans-serif";
  context.textAlign = "center";
  context.lineWidth = 4;
  context.strokeStyle = "#051e28";
  context.fillStyle = "white";
  const height = Math.max(y - 6, 16);
  context.strokeText(number, x, height);
  context.fillText(number, x, height);
}

function paintLine(ends, colour, width) {
  context.beginPath();
  ends.forEach(([x, y]) => context.lineTo(x, y));
  for (const [stroke, line] of [[EDGE, width + 2], [colour, width]]) {
    context.strokeStyle = stroke;
    context.lineWidth = line;
    context.stroke();
  }
}

// ---- the brush

function editMap() {
  const { width, height } = edit;
  const bytes = edit.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height).data;
  const data = Float32Array.from({ length: width * height }, (_, i) => bytes[4 * i] / 255);
  return { data, width, height, box: [0, 0, view.height, view.width], level: 0.5 };
}

function beginEdit() {
  if (edit) return;
  fresh = true;
  const level = logit(threshold());
  edit = editCanvas((context) => {
    const { width, height } = context.canvas;
    const before = zoom;
    zoom = { scale: width / view.width, x: 0, y: 0 };
    const field = sample(map, width, height);
    zoom = before;
    const picture = context.getImageData(0, 0, width, height);
    field.forEach((value, i) => { if (value >= level) picture.data.fill(255, 4 * i, 4 * i + 3); });
    context.putImageData(picture, 0, 0);
  });
}

function stroke(from, to) {
  const context = edit.getContext("2d"), scale = edit.width / view.width;
  context.strokeStyle = named("paint").checked ? "white" : "black"; // the first radio button is "add"
  context.lineWidth = (Number(named("size").value) / zoom.scale) * scale;
  context.lineCap = "round";
  context.beginPath();
  context.moveTo(from[0] * scale, from[1] * scale);
  context.lineTo(to[0] * scale + 0.01, to[1] * scale);
  context.stroke();
  draw();
}

const snapshot = () => edit && edit.getContext("2d").getImageData(0, 0, edit.width, edit.height);
function remember() {
  fresh &&= undo.length < MAX_UNDO;
  undo = [...undo, snapshot()].slice(-MAX_UNDO);
}
const sendMask = () => trigger("edit", { kind: "mask", number: view.number, mask: edit.toDataURL("image/png") });

function paintBrush() {
  context.beginPath();
  context.arc(...cursor, Number(named("size").value) / 2, 0, 2 * Math.PI);
  for (const [colour, width] of [[EDGE, 3], ["white", 1.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
}

// ---- the ruler

function setPoint(place) {
  points = [...(points.length > 1 ? [] : points), onPhoto(place)];
  tellRuler();
  draw();
}

function paintRuler() {
  const ends = points.map(([x, y]) => [zoom.x + x * zoom.scale, zoom.y + y * zoom.scale]);
  if (ends.length === 2) paintLine(ends, "#ffd84d", 2);
  for (const [x, y] of cursor ? [...ends, cursor] : ends) paintLine([[x - 7, y], [x + 7, y], [x, y], [x, y - 7], [x, y + 7]], "#ffd84d", 2);
}

function tellRuler() {
  const hints = [t("Press on two marks of a ruler in the photo."), t("Now the second mark."), t("Enter the length between them.")];
  $("[data-mode=ruler] .hint").textContent = hints[points.length];
  named("take").disabled = points.length < 2;
}

// ---- modes and controls

function setMode(next) {
  mode = next;
  for (const button of element.querySelectorAll(".modes button")) {
    button.setAttribute("aria-pressed", String(button.name === mode));
  }
  for (const panel of element.querySelectorAll(".panel")) panel.hidden = panel.dataset.mode !== mode;
  stage.dataset.mode = mode;
  points = [];
  tellRuler();
  if (mode === "heat") lookUp();
  draw();
}

async function lookUp() {
  const hint = $("[data-mode=heat] .hint"), wanted = key(view);
  hint.textContent = t("One moment");
  const answer = await call("attention");
  if (!view || key(view) !== wanted) return;
  heat = answer.values ? toMap(answer.values, answer.map_size, answer.box, 0) : null;
  hint.textContent = answer.words;
  draw();
}

const actions = {
  in: () => zoomBy(1.5),
  out: () => zoomBy(1 / 1.5),
  fit,
  undo() {
    if (!undo.length || !edit) return;
    if (undo.length === 1 && fresh) return actions.reset();
    const last = undo.pop();
    if (last) edit.getContext("2d").putImageData(last, 0, 0);
    draw();
    if (last) sendMask();
  },
  reset() {
    [edit, undo] = [null, []];
    draw();
    trigger("edit", { kind: "reset", number: view.number });
  },
  take() {
    trigger("edit", { kind: "scale", number: view.number, points, mm: Number(named("mm").value) });
    setMode("");
  },
  drop() {
    trigger("edit", { kind: "unscale", number: view.number });
    setMode("");
  },
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || !view) return;
  if (button.closest(".modes")) setMode(mode === button.name ? "" : button.name);
  else actions[button.name]?.();
});
element.addEventListener("input", draw);
element.addEventListener("change", (event) => {
  if (event.target.name !== "threshold" || !view) return;
  [edit, undo] = [null, []];
  draw();
  trigger("edit", { kind: "threshold", number: view.number, threshold: threshold() });
});

// ---- pointers and keys

const pointers = new Map();
let last = null;
stage.addEventListener("pointerdown", (event) => {
  if (!view?.logits || event.button > 0) return;
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, onStage(event));
  last = onStage(event);
  if (pointers.size > 1) return;
  if (mode === "brush") {
    beginEdit();
    remember();
    stroke(onPhoto(last), onPhoto(last));
  }
  if (mode === "ruler") setPoint(last);
});
stage.addEventListener("pointermove", (event) => {
  const now = onStage(event);
  cursor = mode === "brush" ? now : null;
  if (!pointers.has(event.pointerId)) return void (cursor && draw());
  if (pointers.size === 2) pinch(event.pointerId, now);
  else if (mode === "brush") stroke(onPhoto(last), onPhoto(now));
  else if (mode === "split") moveEdge(now[0]);
  else if (!fitted && mode !== "ruler") [zoom.x, zoom.y] = [zoom.x + now[0] - last[0], zoom.y + now[1] - last[1]];
  pointers.set(event.pointerId, now);
  last = now;
  draw();
});
for (const kind of ["pointerup", "pointercancel"]) {
  stage.addEventListener(kind, (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (mode === "brush" && edit && !pointers.size) sendMask();
  });
}
/** Keys: a zoomed photo is moved by the arrows; so are the brush and the ruler's cross, which Enter sets. */
stage.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const [x, y] = moves[event.key] || [0, 0];
  const aims = view?.logits && (mode === "brush" || mode === "ruler");
  const sets = aims && (event.key === "Enter" || event.key === " ");
  if (!sets && !(moves[event.key] && (aims || (view && !fitted)))) return;
  event.preventDefault();
  event.stopPropagation();
  cursor ??= [stage.clientWidth / 2, stage.clientHeight / 2];
  if (sets && mode === "ruler") setPoint(cursor);
  else if (sets) {
    beginEdit();
    remember();
    stroke(onPhoto(cursor), onPhoto(cursor));
    sendMask();
  } else if (aims) cursor = [cursor[0] + x * (event.shiftKey ? 1 : 8), cursor[1] + y * (event.shiftKey ? 1 : 8)];
  else [zoom.x, zoom.y] = [zoom.x - 40 * x, zoom.y - 40 * y];
  draw();
});
stage.addEventListener("pointerleave", () => { cursor = null; draw(); });
stage.addEventListener("dblclick", (event) => {
  if (mode !== "brush" && mode !== "ruler") fitted ? zoomBy(Math.max(2, 1 / zoom.scale), ...onStage(event)) : fit();
});
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return; // else the page scrolls
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / 200), ...onStage(event));
}, { passive: false });

function pinch(id, now) {
  const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  const fixed = [...pointers].find(([pointer]) => pointer !== id)[1];
  zoomBy(distance(now, fixed) / Math.max(1, distance(pointers.get(id), fixed)), (now[0] + fixed[0]) / 2, (now[1] + fixed[1]) / 2);
}

function moveEdge(x) {
  named("edge").value = (100 * (x - zoom.x)) / (view.width * zoom.scale);
}

window.mtl.viewer = {
  toggle: () => { if (!view) return; named("overlay").click(); },
  zoomBy,
};

// ---- the first look

new ResizeObserver(() => (fitted ? fit() : draw())).observe(stage);
watch("value", show); // 'edit' is what the page listens to
show();
