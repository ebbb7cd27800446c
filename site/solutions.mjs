/** Runs in the page that is printed: moves the solutions of every chapter's exercises
 * to its end, and leaves a line in their place that leads there. */
export function solutionsLast() {
  let moved = 0;
  for (const article of document.querySelectorAll("article")) {
    const end = document.createElement("section");
    end.innerHTML = `<h2 id="${article.id}--solutions">Solutions</h2>`;
    for (const exercise of article.querySelectorAll('section[id*="--exercise-"]')) {
      const folded = [...exercise.querySelectorAll(":scope > .cell.tag_hide-cell")];
      if (!folded.length) continue;
      const heading = exercise.querySelector("h3");
      const title = document.createElement("h3");
      title.textContent = heading.textContent;
      title.id = `${exercise.id}--solution`;
      const line = document.createElement("p");
      line.innerHTML = `<a href="#${title.id}">Solution</a>: at the end of the chapter.`;
      folded[0].before(line);
      end.append(title, ...folded);
      moved += 1;
    }
    if (end.children.length > 1) article.append(end);
  }
  return moved;
}
