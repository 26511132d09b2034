"use strict";
// The address keeps what is shown: #image=NAME&min=0.5&labels=0
const get = (id) => document.getElementById(id);
const read = (element) => JSON.parse(element.textContent);
const make = (tag, className, text = "") => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
};
const stage = get("stage");
const images = Array.from(document.querySelectorAll("script.image"), (element) => (
  {...read(element), jpeg: element.nextElementSibling}));
const hint = get("about").textContent;
let current = null;
let boxes = [];  // of the current image: {...its data, outline, tag}

function showImage(image) {
  current = image;
  for (const other of images) other.button.setAttribute("aria-current", other === image);
  get("name").textContent = image.name;
  get("size").textContent = `${image.width} \u00d7 ${image.height}`;
  const picture = make("img");
  picture.alt = `The image ${image.name}`;
  picture.src = "data:image/jpeg;base64," + image.jpeg.textContent;
  stage.replaceChildren(picture);
  const width = Math.max(image.width, 720);
  stage.style.width = `min(100%, ${width}px, calc(85vh * ${image.width / image.height}))`;
  stage.style.aspectRatio = `${image.width} / ${image.height}`;
  boxes = image.boxes.map((box, rank) => (
    {...box, outline: outlineOf(box, rank), tag: tagOf(box, rank)}));
  for (const box of boxes) {
    box.outline.addEventListener("focus", () => showBox(box));
    box.outline.addEventListener("blur", clearBox);
    stage.append(box.outline, box.tag);
  }
  clearBox();
  get("label").textContent = "";
  get("about").textContent = hint;
  get("likeliest").replaceChildren();
  filter();
}

const percent = (part, whole) => `${100 * part / whole}%`;

function outlineOf(box, rank) {
  const [left, top, width, height] = box.place;
  const element = make("div", "box");
  element.tabIndex = 0;
  element.setAttribute("role", "img");
  const classes = box.likeliest.map(([name, p]) => `${name} ${p.toFixed(3)}`).join(", ");
  element.setAttribute("aria-label", (box.text || "box") + (classes && `; ${classes}`));
  element.style.left = percent(left, current.width);
  element.style.top = percent(top, current.height);
  element.style.width = percent(width, current.width);
  element.style.height = percent(height, current.height);
  element.style.zIndex = 1000 - rank;  // the most confident on top
  element.style.setProperty("--color", box.color);
  return element;
}

function tagOf(box, rank) {  // above its box, or inside it where that is at the image's edge
  const [left, top, width] = box.place;
  const element = make("span", "label", box.text);
  const right = left > 0.6 * current.width;
  element.classList.toggle("inside", top < 0.06 * current.height);
  element.classList.toggle("right", right);
  element.setAttribute("aria-hidden", "true");
  element.style.left = percent(right ? left + width : left, current.width);
  element.style.top = percent(top, current.height);
  element.style.zIndex = 2000 - rank;
  element.style.setProperty("--color", box.color);
  return element;
}

function filter() {
  const min = get("min").valueAsNumber;
  get("min-shown").textContent = min.toFixed(2);
  for (const box of boxes) {
    box.outline.hidden = box.tag.hidden = box.confidence !== null && box.confidence < min;
  }
  const shown = boxes.filter((box) => !box.outline.hidden).length;
  const more = current && current.stored > boxes.length
    ? ` (the most confident of ${current.stored} stored)` : "";
  get("count").textContent = `${shown} of ${boxes.length} boxes${more}`;
  stage.classList.toggle("unlabelled", !get("labels").checked);
}

function showBox(box) {
  clearBox();
  stage.classList.add("chosen");
  for (const element of [box.outline, box.tag]) element.classList.add("active");
  get("label").textContent = box.text || "no class stored";
  get("about").textContent = `x1, y1, x2, y2: ${box.stored.join(", ")}`;
  get("likeliest").replaceChildren(...box.likeliest.map(([name, probability]) => {
    const item = make("li");
    const bar = make("div", "bar");
    bar.append(make("i"));
    bar.firstChild.style.width = `${100 * probability}%`;
    item.append(make("span", "", name), make("span", "number", probability.toFixed(3)), bar);
    return item;
  }));
}

function clearBox() {
  stage.classList.remove("chosen");
  for (const element of stage.children) element.classList.remove("active");
}

function boxAt(event) {  // the smallest, so that one inside another can be reached
  const area = stage.getBoundingClientRect();
  const x = (event.clientX - area.left) / area.width * current.width;
  const y = (event.clientY - area.top) / area.height * current.height;
  const under = boxes.filter(({outline, place: [left, top, width, height]}) => (
    !outline.hidden && left <= x && x <= left + width && top <= y && y <= top + height));
  const size = (box) => box.place[2] * box.place[3];
  return under.reduce((a, b) => (a && size(a) <= size(b) ? a : b), null);
}

function search() {
  const wanted = get("search").value.trim().toLowerCase();
  for (const image of images) {
    image.button.parentElement.hidden = !image.name.toLowerCase().includes(wanted);
  }
  const found = images.filter((image) => !image.button.parentElement.hidden).length;
  get("found").textContent = `${found} of ${images.length} images`;
}

function writeAddress() {
  const state = new URLSearchParams({image: current.name, min: get("min").value});
  if (!get("labels").checked) state.set("labels", "0");
  history.replaceState(null, "", "#" + state);
}

function readAddress() {
  const state = new URLSearchParams(location.hash.slice(1));
  const min = Number.parseFloat(state.get("min"));
  if (min >= 0 && min <= 1) get("min").value = min;
  if (state.has("labels")) get("labels").checked = state.get("labels") !== "0";
  const image = images.find((other) => other.name === state.get("image"));
  if (image && image !== current) showImage(image);
  if (current) filter();
}

get("min").value = read(document.querySelector("script.settings")).min_confidence;
for (const image of images) {
  image.button = make("button", "", image.name);
  image.button.type = "button";
  image.button.addEventListener("click", () => { showImage(image); writeAddress(); });
  const item = make("li");
  item.append(image.button);
  get("names").append(item);
}
get("search").addEventListener("input", search);
for (const id of ["min", "labels"]) {
  get(id).addEventListener("input", filter);
  get(id).addEventListener("change", () => { if (current) writeAddress(); });
}
for (const kind of ["pointermove", "pointerdown"]) {
  stage.addEventListener(kind, (event) => {
    const box = boxAt(event);
    if (box) showBox(box); else clearBox();
  });
}
stage.addEventListener("pointerleave", clearBox);
addEventListener("hashchange", readAddress);
if (images.length) showImage(images[0]);
readAddress();
search();
