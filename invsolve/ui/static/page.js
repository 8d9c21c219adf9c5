// The page: what is dropped, painted and filled in becomes a job; what comes of it is shown.

import * as api from "./api.js";
import { Painter } from "./painter.js";
import { Slices } from "./slices.js";

const pick = (id) => document.getElementById(id);
const radio = (name) => document.querySelector(`input[name="${name}"]:checked`);

const ARRAYS = ["npy", "npz"]; // endings of sinograms
const SCANS = ["tif", "tiff"]; // of what may be a sinogram or a picture

const state = {
  tasks: {},
  task: "inpaint",
  lastPictured: "inpaint", // the last one that took a picture
  sources: { picture: null, sinogram: null }, // what was uploaded, by kind
  geometry: null,
  answers: {}, // by task and field
  models: {}, // by task, where another than its own
  jobs: new Map(),
  lost: false, // whether the server does not answer
  shown: null, // number of the job whose result is shown
  loaded: null, // number of the job whose pictures are loaded
  sample: 0,
  side: "sample", // or "mean", "std"
  zoom: 0, // 0 fits, else pixels of the screen per pixel
  started: 0,
};

const painter = new Painter(
  { picture: pick("picture"), paint: pick("paint"), cursor: pick("cursor"), easel: pick("easel") },
  showTools,
);
const slices = new Slices(pick("slices"));

// -- messages ------------------------------------------------------------------------------------------------------
function complain(error) {
  pick("alert-what").textContent = error.message;
  pick("alert-hint").textContent = error.hint ? `(${error.hint})` : "";
  pick("alert").hidden = false;
}

function calm() {
  pick("alert").hidden = true;
}

// Runs what may be refused, and shows why it was.
async function attempt(act) {
  calm();
  try {
    return await act();
  } catch (error) {
    complain(error);
    return null;
  }
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// -- tasks and fields ----------------------------------------------------------------------------------------------
const form = () => state.tasks[state.task];
const source = () => state.sources[form().takes];

function buildTasks() {
  const labels = Object.entries(state.tasks).map(([name, { title }]) => {
    const input = element("input", { type: "radio", name: "task", value: name, checked: name === state.task });
    input.addEventListener("change", () => chooseTask(name));
    return element("label", {}, input, element("span", { textContent: title }));
  });
  document.querySelector(".tasks").replaceChildren(...labels);
}

function chooseTask(name) {
  state.task = name;
  const chosen = document.querySelector(`input[name="task"][value="${name}"]`);
  if (chosen) chosen.checked = true;
  const { about, takes, paints } = form();
  if (takes === "picture") state.lastPictured = name;
  pick("about").textContent = about;
  pick("file-label").textContent = takes === "sinogram" ? "Choose a sinogram" : "Choose a picture";
  pick("file").accept = takes === "sinogram" ? ".npy,.npz,.tif,.tiff" : "image/*,.heic,.tif,.tiff,.jp2";
  pick("geometry-row").hidden = takes !== "sinogram";
  pick("tools").hidden = !paints;
  pick("tools-legend").textContent = paints === "hints" ? "Paint the colours you want" : "Paint over what is to be filled";
  pick("colour-row").hidden = paints !== "hints";
  pick("invert").hidden = paints !== "mask";
  pick("mask-label").textContent = paints === "hints" ? "Strokes from a file" : "Mask from a file";
  pick("mask-hint").textContent = paints === "hints" ? "on a transparent layer" : "white = missing";
  pick("easel").classList.toggle("grey", paints === "hints");
  buildFields();
  painter.use(paints);
  showSource();
}

function buildFields() {
  const answers = (state.answers[state.task] ||= {});
  const rows = form().fields.map((field) => [field, fieldRow(field, answers)]);
  pick("fields").replaceChildren(...rows.filter(([field]) => !field.more).map(([, row]) => row));
  pick("more-fields").replaceChildren(...rows.filter(([field]) => field.more).map(([, row]) => row));
  const own = form().model;
  const options = ["", ...state.models.all.filter((name) => name !== own)];
  const named = (name) => (name ? name.split("/").at(-1) : `${own} (default)`);
  pick("model").replaceChildren(...options.map((name) => new Option(named(name), name)));
  pick("model").value = state.models[state.task] || "";
}

function fieldRow(field, answers) {
  const id = `field-${field.name}`;
  let input;
  if (field.kind === "choice") {
    input = element("select", { id });
    input.append(...field.choices.map((choice) => new Option(choice, choice)));
    input.value = answers[field.name] || field.default;
  } else {
    input = element("input", { id, type: "text", value: answers[field.name] ?? "", placeholder: field.default });
    input.inputMode = { whole: "numeric", number: "decimal" }[field.kind] || "text";
  }
  input.addEventListener("input", () => {
    answers[field.name] = input.value;
  });
  const row = element("div", { className: "field" }, element("label", { htmlFor: id, textContent: field.label }), input);
  if (field.help && !field.help.startsWith("wanted")) {
    row.append(element("span", { className: "hint", id: `${id}-hint`, textContent: field.help }));
    input.setAttribute("aria-describedby", `${id}-hint`);
  }
  return row;
}

// -- the input -----------------------------------------------------------------------------------------------------
async function take(file) {
  if (!file) return;
  const ending = file.name.split(".").at(-1).toLowerCase();
  if (ending === "toml") return takeGeometry(file);
  const before = state.task;
  if (ARRAYS.includes(ending) && form().takes === "picture") chooseTask("ct");
  if (!ARRAYS.includes(ending) && !SCANS.includes(ending) && form().takes === "sinogram") chooseTask(state.lastPictured);
  const kind = form().takes;
  await attempt(async () => {
    pick("file-about").textContent = `Reading ${file.name} …`;
    try {
      const uploaded = await api.upload(file, file.name, kind);
      uploaded.image = await loadImage(api.viewOf(uploaded.id));
      state.sources[kind] = uploaded;
      if (kind === "picture") painter.show(uploaded.image);
      setZoom(0);
      show("edit");
    } catch (error) {
      chooseTask(before); // the file that would have changed it is none
      throw error;
    } finally {
      showSource();
    }
  });
}

async function takeGeometry(file) {
  if (form().takes !== "sinogram") chooseTask("ct");
  await attempt(async () => {
    state.geometry = await api.upload(file, file.name, "geometry");
    pick("geometry-about").textContent = `${state.geometry.name}: ${state.geometry.about}`;
  });
}

async function takeMask(file) {
  if (!file || !source()) return;
  await attempt(async () => {
    const uploaded = await api.upload(file, file.name, form().paints, source().id);
    painter.addImage(await loadImage(api.viewOf(uploaded.id)));
  });
}

function loadImage(url) {
  const image = new Image();
  image.src = url;
  return image.decode().then(() => image);
}

function showSource() {
  const there = source();
  pick("file-about").textContent = there ? `${there.name}: ${there.about}` : "";
  pick("run").disabled = !there;
  pick("empty").hidden = Boolean(there) || showing() === "result";
  pick("edit").hidden = !there || showing() === "result";
  if (there) {
    const picture = pick("picture");
    if (picture.dataset.of !== there.id) {
      picture.width = there.width;
      picture.height = there.height;
      picture.getContext("2d").drawImage(there.image, 0, 0);
      picture.dataset.of = there.id;
    }
    pick("paint").hidden = !form().paints;
    pick("paint").setAttribute("aria-label", `${there.name}, ${there.about}`);
  }
  showTools();
  layout();
}

function showTools() {
  if (!state.tasks[state.task]) return;
  const { acts, undone } = painter.layer;
  pick("undo").disabled = !acts.length;
  pick("redo").disabled = !undone.length;
  pick("clear").disabled = painter.empty;
  pick("invert").disabled = pick("mask").disabled = !source();
  pick("mask-label").classList.toggle("off", !source());
}

function setSize(size) {
  painter.size = Math.min(200, Math.max(1, Math.round(size)));
  pick("size").value = painter.size;
  pick("size-out").textContent = `${painter.size} px`;
  if (!pick("cursor").hidden) painter.showCursor();
}

function setTool(name) {
  document.querySelector(`input[name="tool"][value="${name}"]`).checked = true;
  painter.erasing = name === "eraser";
}

// -- what is shown, and how large ------------------------------------------------------------------------------------
const showing = () => radio("shown").value;

function show(what) {
  const input = document.querySelector(`input[name="shown"][value="${what}"]`);
  input.disabled = false;
  input.checked = true;
  pick("result").hidden = what !== "result";
  pick("zoom").hidden = what === "result" && current()?.task === "ct";
  showSource();
  layout();
}

function setZoom(zoom) {
  state.zoom = zoom;
  layout();
}

function zoomBy(factor) {
  const [, width] = natural();
  if (!width) return;
  const now = state.zoom || fitted()[0] / width;
  setZoom(Math.min(16, Math.max(0.05, now * factor)));
}

// The element that has the size, and the picture's own width and height.
function natural() {
  if (showing() === "edit") {
    const there = source();
    return there ? [pick("easel"), there.width, there.height] : [null, 0, 0];
  }
  const after = pick("after");
  return [pick("compare"), after.naturalWidth, after.naturalHeight];
}

function fitted() {
  const [frame, width, height] = natural();
  const scale = fitting(frame.parentElement, width, height);
  return [Math.max(1, width * scale), Math.max(1, height * scale)];
}

// The scale at which a picture fits into an element and the window; small ones are enlarged.
function fitting(room, width, height) {
  const high = 0.82 * window.innerHeight - 16;
  return Math.min((room.clientWidth - 16) / width, high / height, Math.max(1, Math.min(512 / width, 8)));
}

function layout() {
  const [frame, width, height] = natural();
  if (!frame || !width || !frame.parentElement.clientWidth) return;
  const [wide, high] = state.zoom ? [width * state.zoom, height * state.zoom] : fitted();
  frame.style.width = `${wide}px`;
  frame.style.height = `${high}px`;
  frame.classList.toggle("sharp", wide > 3 * width);
}

// -- jobs ----------------------------------------------------------------------------------------------------------
async function run() {
  const there = source();
  if (!there) return;
  await attempt(async () => {
    const { paints, takes, fields } = form();
    const files = {};
    if (paints && !painter.empty) {
      const name = `${paints}.png`;
      files[paints] = (await api.upload(await painter.blob(), name, paints, there.id)).id;
    }
    if (takes === "sinogram" && state.geometry) files.geometry = state.geometry.id;
    const given = state.answers[state.task] || {};
    const answers = {};
    for (const { name, kind, default: usual } of fields) {
      const value = (given[name] ?? "").trim();
      if (value && !(kind === "choice" && value === usual)) answers[name] = value;
    }
    const model = state.models[state.task] || "";
    const job = await api.run({ task: state.task, source: there.id, files, answers, model });
    state.started = Date.now();
    watch(job);
    choose(job.id);
  });
}

function watch(job) {
  state.jobs.set(job.id, job);
  if (ended(job)) return;
  api.follow(
    job.id,
    (now) => {
      if (state.lost) calm();
      state.lost = false;
      if (now.state === "running" && state.jobs.get(now.id).state !== "running") now.begun = Date.now();
      else now.begun = state.jobs.get(now.id).begun;
      state.jobs.set(now.id, now);
      showRuns();
      if (state.shown === now.id) showJob();
    },
    () => {
      state.lost = true;
      complain(new api.Refused("the connection is lost", "is invsolve ui still running?"));
    },
  );
}

const ended = (job) => ["done", "failed", "cancelled"].includes(job.state);
const current = () => state.jobs.get(state.shown);

function choose(id) {
  state.shown = id;
  show("result");
  showRuns();
  showJob();
  const { top } = pick("stage").getBoundingClientRect();
  if (top < 0 || top > window.innerHeight / 2) pick("stage").scrollIntoView();
}

function showRuns() {
  const words = { waiting: "waiting", running: "running", done: "done", failed: "failed", cancelled: "cancelled" };
  const items = [...state.jobs.values()].reverse().map((job) => {
    const button = element("button", { type: "button" });
    button.append(`${state.tasks[job.task].title}: ${job.given[0]}`);
    button.append(element("small", { textContent: words[job.state] + (job.seconds ? `, ${job.seconds} s` : "") }));
    if (job.id === state.shown) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => choose(job.id));
    return element("li", {}, button);
  });
  pick("run-list").replaceChildren(...items);
  pick("runs").hidden = !items.length;
}

function showJob() {
  const job = current();
  if (!job) return;
  pick("working").hidden = ended(job);
  pick("failed").hidden = !["failed", "cancelled"].includes(job.state);
  pick("failed").textContent =
    job.state === "cancelled" ? "Cancelled: nothing computes any more." : `${job.error}${job.hint ? ` (${job.hint})` : ""}`;
  pick("finished").hidden = job.state !== "done";
  if (job.state !== "done") pick("pictures").hidden = pick("slices").hidden = true;
  if (!ended(job)) showProgress(job);
  if (job.state === "done") {
    showFinished(job);
    if (state.loaded !== job.id) loadResult(job);
  }
}

function showProgress(job) {
  const progress = pick("progress");
  if (job.state === "waiting" || !job.share) progress.removeAttribute("value");
  else progress.value = job.share;
  pick("share").textContent = job.share ? `${Math.round(100 * job.share)} %` : "";
  pick("doing").textContent = job.state === "waiting" ? "Waiting for the job before." : doing(job);
  const preview = pick("preview");
  preview.hidden = !job.preview;
  if (!job.preview) return;
  preview.onload = () => {
    const { naturalWidth: width, naturalHeight: height } = preview;
    preview.style.width = `${width * fitting(pick("result"), width, height)}px`;
  };
  preview.src = api.previewOf(job);
}

// What a job is at, in a sentence, with the time that it will still take.
function doing(job) {
  if (!job.said.length) return "Loading the prior …";
  const last = job.said.at(-1).replace("; Ctrl-C changes nothing", "");
  if (!(job.share > 0.05) || !job.begun) return last;
  const seconds = ((Date.now() - job.begun) / 1000) * (1 / job.share - 1);
  if (job.share >= 1) return `${last} - writing the results …`;
  return `${last} - about ${seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`} left`;
}

function showFinished(job) {
  const link = (name, text, primary) =>
    element("a", { href: api.fileOf(job, name), download: name, textContent: text, className: primary ? "button primary" : "button" });
  const all = element("a", { href: api.zipOf(job), textContent: "All as zip", className: "button" });
  all.id = "zip";
  pick("downloads").replaceChildren(link(job.outputs[0], "Download the result", true), all);
  pick("downloads").firstChild.id = "download";
  pick("files").replaceChildren(...[...job.outputs, ...job.given].map((name) => element("li", {}, plainLink(job, name))));
  pick("said").replaceChildren(...job.said.map((line) => element("li", { textContent: line })));
  pick("command").textContent = job.command;
}

const plainLink = (job, name) => element("a", { href: api.fileOf(job, name), download: name, textContent: name });

async function loadResult(job) {
  state.loaded = job.id;
  state.sample = 0;
  state.side = "sample";
  pick("pictures").hidden = job.task === "ct";
  pick("slices").hidden = job.task !== "ct";
  if (job.task === "ct") {
    await attempt(() => slices.load(job, (name) => api.fileOf(job, name)));
    return;
  }
  pick("compare").classList.toggle("grey", job.task === "colorize");
  pick("before").src = `${api.fileOf(job, job.given[0])}?view`;
  pick("slide").value = 50;
  setZoom(0);
  showPicture();
}

// The pictures that a job wrote: samples, mean and deviation.
function parts(job) {
  const [first, ...others] = job.outputs;
  const named = (part) => others.find((name) => name.includes(`.${part}.`));
  return { samples: [first, ...others.filter((name) => /\.sample-\d+\.[^.]+$/.test(name))], mean: named("mean"), std: named("std") };
}

function showPicture() {
  const job = current();
  if (!job || job.state !== "done" || job.task === "ct") return;
  const { samples, mean, std } = parts(job);
  state.sample = Math.min(samples.length - 1, Math.max(0, state.sample));
  if (!mean) state.side = "sample";
  const name = { sample: samples[state.sample], mean, std }[state.side];
  const after = pick("after");
  after.onload = layout;
  after.src = `${api.fileOf(job, name)}?view`;
  const what = { mean: "Mean", std: "Where they differ" }[state.side] || `Sample ${state.sample + 1} of ${samples.length}`;
  after.alt = `The result: ${what.toLowerCase()}`;
  pick("which").textContent = what;
  pick("steps").hidden = samples.length === 1;
  pick("previous").disabled = state.side === "sample" && state.sample === 0;
  pick("next").disabled = state.side === "sample" && state.sample === samples.length - 1;
  for (const side of ["mean", "std"]) {
    pick(side).setAttribute("aria-pressed", String(state.side === side));
  }
  pick("gain-row").hidden = state.side !== "std";
  after.style.filter = state.side === "std" ? `brightness(${pick("gain").value})` : "";
  slide();
}

function slide() {
  const share = Number(pick("slide").value);
  pick("after").style.clipPath = `inset(0 0 0 ${share}%)`;
  pick("line").style.left = `${share}%`;
  pick("slide").setAttribute("aria-valuetext", `${Math.round(share)} % input`);
}

function step(by) {
  if (current()?.task === "ct") return slices.step(by);
  if (state.side === "sample") state.sample += by;
  state.side = "sample";
  return showPicture();
}

function side(name) {
  state.side = state.side === name ? "sample" : name;
  showPicture();
}

// -- keyboard ------------------------------------------------------------------------------------------------------
const press = (id) => () => pick(id).offsetParent && !pick(id).disabled && pick(id).click();
const painting = (act) => () => form().paints && showing() === "edit" && act();

const KEYS = [
  ["o", "Open a file", () => pick("file").click()],
  ["Ctrl+Enter", "Run", () => pick("settings").requestSubmit()],
  ["x", "Cancel the job that is shown", press("cancel")],
  ["b", "Brush", painting(() => setTool("brush"))],
  ["e", "Eraser", painting(() => setTool("eraser"))],
  ["[", "Smaller brush", painting(() => setSize(painter.size / 1.25 - 0.5))],
  ["]", "Larger brush", painting(() => setSize(painter.size * 1.25 + 0.5))],
  ["Ctrl+z", "Undo", painting(() => painter.undo())],
  ["Ctrl+Shift+z", "Redo", painting(() => painter.redo())],
  ["i", "Invert the mask", press("invert")],
  ["Arrow keys", "On the picture: move the brush (Shift: far)", null],
  ["Space", "On the picture: paint", null],
  ["1", "Show the input", () => show("edit")],
  ["2", "Show the result", () => current() && show("result")],
  ["p", "Previous sample", () => step(-1)],
  ["n", "Next sample", () => step(1)],
  ["m", "Mean of the samples", press("mean")],
  ["d", "Where the samples differ", press("std")],
  ["+", "Zoom in", () => zoomBy(1.25)],
  ["-", "Zoom out", () => zoomBy(0.8)],
  ["0", "Fit into the window", () => setZoom(0)],
  ["?", "This list", () => pick("keys").showModal()],
];

function buildKeys() {
  const rows = KEYS.map(([keys, what]) => {
    const caps = keys.split(/(?<=.)\+(?=.)/).map((key) => element("kbd", { textContent: key.length === 1 ? key.toUpperCase() : key }));
    const cell = element("td");
    caps.forEach((cap, number) => cell.append(...(number ? [" + ", cap] : [cap])));
    return element("tr", {}, cell, element("td", { textContent: what }));
  });
  pick("key-rows").replaceChildren(...rows);
}

function onKey(event) {
  if (pick("keys").open) return;
  const control = event.ctrlKey || event.metaKey;
  const field = event.target.closest("input[type='text'], select, textarea");
  const wanted = [control && "Ctrl", control && event.shiftKey && "Shift", event.key.length === 1 ? event.key.toLowerCase() : event.key];
  const name = wanted.filter(Boolean).join("+");
  const alias = { "Ctrl+y": "Ctrl+Shift+z" }[name] || name;
  const found = KEYS.find(([keys, , act]) => act && keys === alias);
  if (!found) return;
  if (!control && (field || !pick("single").checked)) return;
  if (field && alias !== "Ctrl+Enter") return;
  event.preventDefault();
  found[2]();
}

// -- wiring --------------------------------------------------------------------------------------------------------
function wire() {
  const on = (id, name, act) => pick(id).addEventListener(name, act);
  const chosen = (act) => (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    act(file);
  };
  on("settings", "submit", (event) => {
    event.preventDefault();
    run();
  });
  on("file", "change", chosen(take));
  on("mask", "change", chosen(takeMask));
  on("geometry", "change", chosen(takeGeometry));
  on("alert-close", "click", calm);
  on("size", "input", (event) => setSize(Number(event.target.value)));
  on("colour", "input", (event) => {
    painter.colour = event.target.value;
  });
  on("undo", "click", () => painter.undo());
  on("redo", "click", () => painter.redo());
  on("clear", "click", () => painter.add({ clear: true }));
  on("invert", "click", () => painter.add({ invert: true }));
  on("model", "change", (event) => {
    state.models[state.task] = event.target.value;
  });
  for (const input of document.querySelectorAll("input[name='tool']")) input.addEventListener("change", () => setTool(input.value));
  for (const input of document.querySelectorAll("input[name='shown']")) input.addEventListener("change", () => show(input.value));
  on("zoom-in", "click", () => zoomBy(1.25));
  on("zoom-out", "click", () => zoomBy(0.8));
  on("zoom-fit", "click", () => setZoom(0));
  on("cancel", "click", () => attempt(() => api.cancel(state.shown)));
  on("previous", "click", () => step(-1));
  on("next", "click", () => step(1));
  on("mean", "click", () => side("mean"));
  on("std", "click", () => side("std"));
  on("slide", "input", slide);
  on("gain", "input", (event) => {
    pick("gain-out").textContent = `× ${event.target.value}`;
    showPicture();
  });
  on("copy", "click", () => attempt(() => navigator.clipboard.writeText(pick("command").textContent)));
  on("help", "click", () => pick("keys").showModal());
  on("keys-close", "click", () => pick("keys").close());
  window.addEventListener("resize", layout);
  document.addEventListener("keydown", onKey);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) take(file);
  });
}

async function begin() {
  wire();
  buildKeys();
  setSize(20);
  await attempt(async () => {
    const { version, tasks, models, largest_upload: largest } = await api.start();
    api.limits.bytes = largest;
    pick("version").textContent = version;
    state.tasks = tasks;
    state.models.all = models;
    buildTasks();
    chooseTask("inpaint");
    for (const job of await api.jobs()) watch(job);
    showRuns();
    document.body.dataset.ready = "true";
  });
}

begin();
