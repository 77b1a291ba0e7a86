// A press of a button on a card goes to the server.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) trigger("select", { action: button.dataset.do, name: button.dataset.name });
});
