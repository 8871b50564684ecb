// The one script of a page: starts what the page has. Nothing here is needed to read or to decide.
import { live } from "./live.js";
import { log } from "./log.js";
import { keys } from "./keys.js";

const viewer = log(document.getElementById("log"));
live(document.getElementById("main"), viewer);
keys(viewer);
