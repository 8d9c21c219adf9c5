// CT slices in Hounsfield units, side by side in one grey window.

const RANGE = { fbp: "FBP", tv: "TV", ours: "Ours", std: "Standard deviation" };

// The shape and numbers of an .npy file of float32.
export async function readNpy(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`no ${url}`);
  const buffer = await response.arrayBuffer();
  const view = new DataView(buffer);
  const long = view.getUint8(6) > 1;
  const length = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const begin = (long ? 12 : 10) + length;
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, long ? 12 : 10, length));
  if (!header.includes("'<f4'") || header.includes("'fortran_order': True")) throw new Error("not float32 in C order");
  const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((part) => part.trim()).map(Number);
  return { shape, data: new Float32Array(buffer.slice(begin)) };
}

// A stack (slices, height, width) of what is (height, width) or a stack of it.
function stacked({ shape, data }) {
  const [height, width] = shape.slice(-2);
  return { slices: shape.length > 2 ? shape[0] : 1, height, width, data };
}

export class Slices {
  constructor(root) {
    this.root = root;
    this.pick = (id) => root.querySelector(`#${id}`);
    this.stacks = {};
    this.samples = [];
    this.probe = null;
    for (const id of ["centre", "width", "white", "slice"]) {
      this.pick(id).addEventListener("input", () => {
        if (id === "centre" || id === "width") this.matchPreset();
        this.draw();
      });
    }
    this.pick("preset").addEventListener("change", (event) => {
      if (!event.target.value) return;
      [this.pick("centre").value, this.pick("width").value] = event.target.value.split(",");
      this.draw();
    });
    this.pick("ours").addEventListener("change", () => this.draw());
  }

  // Load what a job wrote; `urlOf(name)` is where a file is.
  async load(job, urlOf) {
    const main = job.outputs.find((name) => name.endsWith(".npy"));
    const stem = main.replace(/\.npy$/, "");
    const wanted = { fbp: `${stem}.fbp.npy`, tv: `${stem}.tv.npy`, ours: main, std: `${stem}.std.npy` };
    this.stacks = {};
    for (const [key, name] of Object.entries(wanted)) {
      if (job.outputs.includes(name)) this.stacks[key] = stacked(await readNpy(urlOf(name)));
    }
    this.samples = [];
    const { slices, height, width } = this.stacks.ours;
    const drawn = `${stem}.samples.npy`;
    if (job.outputs.includes(drawn)) {
      const { shape, data } = await readNpy(urlOf(drawn));
      const size = slices * height * width;
      for (let k = 0; k < shape[0]; k += 1) {
        this.samples.push({ slices, height, width, data: data.subarray(k * size, (k + 1) * size) });
      }
    }
    const options = this.samples.length ? ["Mean", ...this.samples.map((_, k) => `Sample ${k + 1}`)] : ["One sample"];
    this.pick("ours").replaceChildren(...options.map((text, value) => new Option(text, value)));
    this.pick("slice").max = slices - 1;
    this.pick("slice").value = Math.floor(slices / 2);
    this.pick("slice-row").hidden = slices === 1;
    this.pick("white-row").hidden = !this.stacks.std;
    this.probe = null;
    this.build();
    this.draw();
  }

  build() {
    const panels = Object.keys(this.stacks).map((key) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = RANGE[key];
      const canvas = document.createElement("canvas");
      canvas.width = this.stacks[key].width;
      canvas.height = this.stacks[key].height;
      canvas.dataset.key = key;
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "img");
      canvas.addEventListener("pointermove", (event) => {
        const box = canvas.getBoundingClientRect();
        const column = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
        const row = Math.floor(((event.clientY - box.top) / box.height) * canvas.height);
        this.point(row, column);
      });
      canvas.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
        if (!step) return;
        const far = event.shiftKey ? 10 : 1;
        const [row, column] = this.probe || [canvas.height >> 1, canvas.width >> 1];
        this.point(row + far * step[0], column + far * step[1]);
        event.preventDefault();
      });
      figure.append(caption, canvas);
      return figure;
    });
    this.pick("panels").replaceChildren(...panels);
  }

  get shown() {
    const number = Number(this.pick("ours").value);
    return { ...this.stacks, ours: number ? this.samples[number - 1] : this.stacks.ours };
  }

  step(by) {
    const select = this.pick("ours");
    select.selectedIndex = Math.min(select.length - 1, Math.max(0, select.selectedIndex + by));
    this.draw();
  }

  matchPreset() {
    const now = `${this.pick("centre").value},${this.pick("width").value}`;
    const preset = this.pick("preset");
    preset.value = [...preset.options].some((option) => option.value === now) ? now : "";
  }

  draw() {
    const number = (id) => Number(this.pick(id).value);
    const [centre, width, white, slice] = ["centre", "width", "white", "slice"].map(number);
    this.pick("centre-out").textContent = `${centre} HU`;
    this.pick("width-out").textContent = `${width} HU`;
    this.pick("white-out").textContent = `${white} HU`;
    this.pick("slice-out").textContent = `${slice + 1} of ${this.stacks.ours.slices}`;
    for (const canvas of this.pick("panels").querySelectorAll("canvas")) {
      const { key } = canvas.dataset;
      const [low, range] = key === "std" ? [0, white] : [centre - width / 2, width];
      const stack = this.shown[key];
      const size = stack.height * stack.width;
      const image = new ImageData(stack.width, stack.height);
      for (let i = 0, at = slice * size; i < size; i += 1, at += 1) {
        const grey = (255 * (stack.data[at] - low)) / range;
        image.data[4 * i] = image.data[4 * i + 1] = image.data[4 * i + 2] = grey; // clamped and rounded by its type
        image.data[4 * i + 3] = 255;
      }
      const context = canvas.getContext("2d");
      context.putImageData(image, 0, 0);
      const name = key === "ours" ? this.pick("ours").selectedOptions[0].textContent : RANGE[key];
      canvas.previousSibling.textContent = key === "ours" ? `Ours: ${name.toLowerCase()}` : name;
      canvas.setAttribute("aria-label", `${name}, ${stack.width} by ${stack.height} pixels; arrow keys read pixels`);
      if (this.probe) this.cross(context);
    }
  }

  cross(context) {
    const [row, column] = this.probe;
    context.strokeStyle = "#ffd400";
    context.lineWidth = Math.max(1, context.canvas.width / 256);
    const arm = context.canvas.width / 40;
    context.strokeRect(column - arm / 2, row - arm / 2, arm + 1, arm + 1);
  }

  // Read a pixel of every panel.
  point(row, column) {
    const { height, width } = this.stacks.ours;
    this.probe = [Math.min(height - 1, Math.max(0, row)), Math.min(width - 1, Math.max(0, column))];
    this.draw();
    const at = Number(this.pick("slice").value) * height * width + this.probe[0] * width + this.probe[1];
    const read = Object.entries(this.shown).map(([key, stack]) => `${RANGE[key]} ${stack.data[at].toFixed(0)}`);
    this.pick("probe").textContent = `Row ${this.probe[0]}, column ${this.probe[1]}: ${read.join(", ")} HU`;
  }
}
