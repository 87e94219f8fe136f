import ReconnectingEventSource from "reconnecting-eventsource";

import { listen } from "./listen.js";

export default (task, report) => {
  const source = new ReconnectingEventSource(task.url);
  listen(source, task, report);
  if (task.setting === "close") {
    source.addEventListener("hero.close", ({ data }) => {
      if (!JSON.parse(data).reconnect) source.close(), report({ end: true });
    });
  }
};
