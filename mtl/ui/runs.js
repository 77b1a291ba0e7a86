// The ticked runs are kept by name: a new run moves all rows of the table. Times are shown in the reader's own zone.
const ticked = new Set();
const boxes = () => [...element.querySelectorAll("input[type=checkbox]")];

function dress() {
  const there = new Set(boxes().map((box) => box.value));
  [...ticked].filter((name) => !there.has(name)).forEach((name) => ticked.delete(name));
  boxes().forEach((box) => (box.checked = ticked.has(box.value)));
  element.querySelectorAll("time").forEach((time) => {
    time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  });
}

element.addEventListener("change", (event) => {
  const box = event.target;
  if (box.type !== "checkbox") return;
  ticked[box.checked ? "add" : "delete"](box.value);
  trigger("input", { names: boxes().map((other) => other.value).filter((name) => ticked.has(name)) });
});
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-show]");
  if (!button) return;
  trigger("select", { name: button.dataset.show });
  document.querySelector("#mtl-follow")?.scrollIntoView({ behavior: "smooth" });
});
watch("value", dress);
dress();
