// Follows an answer while it grows: scrolls with its end, as long as that is visible. Who scrolls up stops it.

import * as composer from "./composer.js";

const TOLERANCE = 4; // pixels

/** Draws, and then scrolls if the end of `card` was visible before and is not any more. */
export function following(card, draw) {
  const wasVisible = card && isEndVisible(card, TOLERANCE) && !composer.isInUse();
  draw();
  if (wasVisible && !isEndVisible(card, 0)) scrollBy({ top: card.getBoundingClientRect().bottom - innerHeight, behavior: "instant" });
}

function isEndVisible(card, tolerance) {
  const { bottom, height } = card.getBoundingClientRect();
  return height > 0 && bottom > 0 && bottom <= innerHeight + tolerance;
}
