// Follows an answer while it grows: scrolls with its end, from when that is visible until the user scrolls up.

import * as composer from "./composer.js";

const TOLERANCE = 4; // pixels

let followed = null;
let reached = 0; // how far the page was scrolled last

addEventListener(
  "scroll",
  () => {
    if (scrollY < reached - TOLERANCE) followed = null;
    reached = scrollY;
  },
  { passive: true },
);

/** Draws, and then scrolls to the end of `card` if that was visible before, or is followed, and is not visible any more. */
export function following(card, draw) {
  // What appears above a followed card moves its end, and the next part of the answer may come before that is drawn.
  const follows = card && (card === followed || isEndVisible(card, TOLERANCE)) && !composer.isInUse();
  draw();
  followed = follows ? card : null;
  if (follows && !isEndVisible(card, 0)) scrollBy({ top: card.getBoundingClientRect().bottom - innerHeight, behavior: "instant" });
  reached = scrollY;
}

function isEndVisible(card, tolerance) {
  const { bottom, height } = card.getBoundingClientRect();
  return height > 0 && bottom > 0 && bottom <= innerHeight + tolerance;
}
