// Painting on a picture: a mask in red, or strokes of colour. Every act is kept, so that it can be undone; the canvas is
// drawn anew from the acts.

const MASK_COLOUR = "#e6003c";

export class Painter {
  constructor({ picture, paint, cursor, easel }, changed) {
    Object.assign(this, { picture, paint, cursor, easel, changed });
    this.layers = { mask: layer(), hints: layer() };
    this.kind = "mask";
    this.size = 20;
    this.colour = "#c0392b";
    this.erasing = false;
    this.spot = null; // where the keyboard's brush is
    this.stroke = null;
    this.spaceDown = false;
    this.listen();
  }

  // A new picture, (width, height); what was painted is forgotten.
  show(image) {
    for (const canvas of [this.picture, this.paint]) {
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
    }
    this.picture.getContext("2d").drawImage(image, 0, 0);
    this.layers = { mask: layer(), hints: layer() };
    this.spot = null;
    this.redraw();
  }

  use(kind) {
    this.kind = kind || "none";
    this.paint.dataset.kind = this.kind;
    this.redraw();
  }

  get layer() {
    return this.layers[this.kind] || layer();
  }

  get empty() {
    return this.layer.acts.length === 0 || this.layer.acts.at(-1).clear === true;
  }

  // -- acts ------------------------------------------------------------------------------------------------------
  add(act) {
    if (!(this.kind in this.layers)) return;
    this.layer.acts.push(act);
    this.layer.undone = [];
    this.redraw();
  }

  undo() {
    const act = this.layer.acts.pop();
    if (act) this.layer.undone.push(act);
    this.redraw();
  }

  redo() {
    const act = this.layer.undone.pop();
    if (act) this.layer.acts.push(act);
    this.redraw();
  }

  // A mask's picture, black and white: white becomes painted.
  addImage(image) {
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    if (this.kind === "mask") {
      const data = context.getImageData(0, 0, canvas.width, canvas.height);
      const [red, green, blue] = channels(MASK_COLOUR);
      for (let i = 0; i < data.data.length; i += 4) {
        const missing = data.data[i] > 127;
        data.data.set([red, green, blue, missing ? 255 : 0], i);
      }
      context.putImageData(data, 0, 0);
    }
    this.add({ image: canvas });
  }

  redraw() {
    const context = this.paint.getContext("2d");
    context.clearRect(0, 0, this.paint.width, this.paint.height);
    for (const act of this.layer.acts) this.draw(context, act);
    context.globalCompositeOperation = "source-over";
    this.changed();
  }

  draw(context, act) {
    const { width, height } = this.paint;
    context.globalCompositeOperation = "source-over";
    if (act.clear) {
      context.clearRect(0, 0, width, height);
    } else if (act.invert) {
      context.globalCompositeOperation = "source-out";
      context.fillStyle = MASK_COLOUR;
      context.fillRect(0, 0, width, height);
    } else if (act.image) {
      context.drawImage(act.image, 0, 0);
    } else {
      this.drawStroke(context, act, 0);
    }
  }

  // The stroke from its point number `from` on.
  drawStroke(context, stroke, from) {
    const points = stroke.points.slice(Math.max(0, from));
    context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
    context.fillStyle = context.strokeStyle = stroke.colour;
    context.lineWidth = stroke.size;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    if (points.length === 1) {
      context.arc(points[0][0], points[0][1], stroke.size / 2, 0, 2 * Math.PI);
      context.fill();
    } else {
      context.moveTo(...points[0]);
      for (const point of points.slice(1)) context.lineTo(...point);
      context.stroke();
    }
    context.globalCompositeOperation = "source-over";
  }

  // -- strokes ---------------------------------------------------------------------------------------------------
  begin(point) {
    if (!(this.kind in this.layers)) return;
    const colour = this.kind === "mask" ? MASK_COLOUR : this.colour;
    this.stroke = { erase: this.erasing, size: this.size, colour, points: [point] };
    this.drawStroke(this.paint.getContext("2d"), this.stroke, 0);
  }

  extend(point) {
    if (!this.stroke) return;
    const last = this.stroke.points.at(-1);
    if (Math.hypot(point[0] - last[0], point[1] - last[1]) < 0.5) return;
    this.stroke.points.push(point);
    this.drawStroke(this.paint.getContext("2d"), this.stroke, this.stroke.points.length - 2);
  }

  end() {
    if (!this.stroke) return;
    const stroke = this.stroke;
    this.stroke = null;
    this.add(stroke);
  }

  listen() {
    const { paint } = this;
    paint.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !event.isPrimary) return;
      paint.setPointerCapture(event.pointerId);
      paint.focus({ preventScroll: true });
      this.begin(this.position(event));
      event.preventDefault();
    });
    paint.addEventListener("pointermove", (event) => {
      this.spot = this.position(event);
      this.showCursor();
      const moves = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
      for (const move of moves.length ? moves : [event]) this.extend(this.position(move));
    });
    for (const name of ["pointerup", "pointercancel"]) paint.addEventListener(name, () => this.end());
    paint.addEventListener("pointerleave", () => this.hideCursor());
    paint.addEventListener("focus", () => this.showCursor());
    paint.addEventListener("blur", () => {
      this.spaceDown = false;
      this.end();
      this.hideCursor();
    });
    paint.addEventListener("keydown", (event) => this.key(event));
    paint.addEventListener("keyup", (event) => {
      if (event.key !== " ") return;
      this.spaceDown = false;
      this.end();
    });
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const { width, height } = this.paint;
    this.spot ||= [width / 2, height / 2];
    if (event.key in steps) {
      const far = event.shiftKey ? 4 * this.size : Math.max(1, this.size / 3);
      const [dx, dy] = steps[event.key];
      this.spot = [clamp(this.spot[0] + dx * far, 0, width), clamp(this.spot[1] + dy * far, 0, height)];
      if (this.spaceDown) this.extend(this.spot);
    } else if (event.key === " ") {
      if (!this.spaceDown) this.begin(this.spot);
      this.spaceDown = true;
    } else {
      return;
    }
    event.preventDefault();
    this.showCursor();
  }

  // Pixel coordinates of a pointer.
  position(event) {
    const box = this.paint.getBoundingClientRect();
    const scale = this.paint.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  showCursor() {
    if (!(this.kind in this.layers)) return this.hideCursor();
    this.spot ||= [this.paint.width / 2, this.paint.height / 2];
    const scale = this.paint.clientWidth / this.paint.width;
    const style = this.cursor.style;
    style.width = style.height = `${Math.max(4, this.size * scale)}px`;
    style.left = `${this.spot[0] * scale}px`;
    style.top = `${this.spot[1] * scale}px`;
    this.cursor.hidden = false;
  }

  hideCursor() {
    if (document.activeElement !== this.paint) this.cursor.hidden = true;
  }

  // What was painted, as the commands read it: a mask white where missing, hints opaque where there are any.
  async blob() {
    const canvas = document.createElement("canvas");
    canvas.width = this.paint.width;
    canvas.height = this.paint.height;
    const context = canvas.getContext("2d");
    context.drawImage(this.paint, 0, 0);
    if (this.kind === "mask") {
      context.globalCompositeOperation = "source-in";
      context.fillStyle = "#fff";
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.globalCompositeOperation = "destination-over";
      context.fillStyle = "#000";
      context.fillRect(0, 0, canvas.width, canvas.height);
    }
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }
}

const layer = () => ({ acts: [], undone: [] });
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
