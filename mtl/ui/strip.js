// The photos on the desk as a list of buttons. Thumbnails are fetched once each; the list itself comes whole each time.
const { t } = window.mtl;
const list = element.querySelector("ol");
const thumbnails = new Map(); // version, which no other photo ever has -> data URL

async function show() {
  const { token = "", selected = 0, items = [] } = JSON.parse(props.value || "{}");
  while (list.children.length > items.length) list.lastChild.remove();
  while (list.children.length < items.length) list.append(made(list.children.length + 1));
  items.forEach(([state, caption, version], index) => fill(list.children[index], index + 1, selected, state, caption, version));
  const missing = items.flatMap(([state, , version], index) => state === "done" && !thumbnails.has(version) ? [[index + 1, version]] : []);
  if (!missing.length) return;
  missing.forEach(([, version]) => thumbnails.set(version, ""));
  const found = await server.thumbnails({ token, numbers: missing.map(([number]) => number) });
  missing.forEach(([number, version], place) => {
    thumbnails.set(version, found[place]);
    const image = list.children[number - 1]?.querySelector("img");
    if (image?.dataset.key === version) image.src = found[place];
  });
}

function made(number) {
  const item = document.createElement("li");
  item.innerHTML = '<button type="button"><span class="tile"><img alt=""><i></i><b></b></span><span class="words"></span></button>';
  item.firstChild.addEventListener("click", () => trigger("select", { number }));
  return item;
}

function fill(item, number, selected, state, caption, key) {
  const button = item.firstChild, image = button.querySelector("img");
  button.className = `${state}${number === selected ? " selected" : ""}`;
  button.toggleAttribute("aria-current", number === selected);
  if (number === selected) button.setAttribute("aria-current", "true");
  button.querySelector("b").textContent = number;
  button.querySelector(".words").textContent = caption;
  if (image.dataset.key !== key) {
    image.dataset.key = key;
    image.removeAttribute("src");
  }
  const url = thumbnails.get(key);
  if (url && !image.src) image.src = url;
}

element.querySelector("ol").setAttribute("aria-label", t("Photos"));
window.mtl.sureToRemove = () => [confirm(t("Remove all photos, with their answers, corrections and scales?"))];
watch("value", show);
show();
