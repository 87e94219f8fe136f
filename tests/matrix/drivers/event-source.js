import { listen } from "./listen.js";

export default (task, report) => listen(new EventSource(task.url), task, report);
