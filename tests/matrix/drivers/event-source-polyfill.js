import { EventSourcePolyfill } from "event-source-polyfill";

import { listen } from "./listen.js";

export default (task, report) => listen(new EventSourcePolyfill(task.url), task, report);
