// Times are shown in the reader's own zone and language.
const dress = () =>
  element.querySelectorAll("time").forEach((time) => {
    time.textContent = new Date(time.dateTime).toLocaleString(navigator.language, { dateStyle: "medium", timeStyle: "short" });
  });
watch("value", dress);
dress();
