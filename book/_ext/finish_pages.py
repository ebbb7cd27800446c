"""The last step of a build: what the theme leaves to be wished for, on every page.

Roles and names for screen readers, no script that a page does not use, nothing on the
console, a description for search engines and previews of links. `make site-check`
opens the pages in a browser and says what is still wrong.
"""

import re
from html import escape, unescape
from pathlib import Path

SITE = "https://pfref.github.io/pfref/"
CARD = "_static/card.png"
SEARCH = r'\s*<script src="[^"]*(searchtools|language_data|searchindex)\.js[^"]*">'
DESIGN = (
    r"\s*<link [^>]*sphinx-design[^>]*>|\s*<script [^>]*design-tabs\.js[^>]*></script>"
)
THEBE = (
    r"\s*<script[^>]*>\s*const THEBE_JS_URL[^<]*</script>"
    r"|\s*<script[^>]*sphinx-thebe\.js[^>]*></script>"
    r"|\s*<link[^>]*sphinx-thebe\.css[^>]*/>"
    r'|\s*<script type="text/x-thebe-config">.*?</script>'
    r"|\s*<script>kernelName = [^<]*</script>"
)
PARAMETERS = re.compile(
    r'<dl>\s*((?:<dd><em class="sig-param">(?:(?!</?d[dlt]>).)*</dd>\s*)+)</dl>', re.S
)
ICON = re.compile(r'((?:\.fa-[a-z0-9-]+:before,?)+)\{content:"\\[0-9a-f]+"\}', re.S)
SYMBOL = re.compile(
    r'(<th class="head[^"]*">\s*<p>)<span class="math[^>]*>'
    r"\\\(([A-Za-z])_([A-Za-z0-9])\\\)</span>(</p></th>)"
)
DOWNLOAD = re.compile(
    r'class="reference download internal" download="" '
    r'href="([^"]*)_downloads/[0-9a-f]+/(run[\w-]*\.html)"'
)
PARTS = re.compile(
    r'(reference internal" href="[^"]*">([^<]*)</a><details[^>]*><summary)>'
)
SIDEBAR = '<div id="pst-primary-sidebar" class="'


def lighter(page: str, name: str) -> str:
    """Without the scripts and styles of features that the page does not have."""
    page = re.sub(THEBE, "", page, flags=re.S)
    if name == "search.html":
        page = quiet(page)
    else:
        page = re.sub(SEARCH + "</script>", "", page)
    if not re.search(r'class="[^"]*\bsd-', page):
        page = re.sub(DESIGN, "", page)
    # The theme's icons of brands are a font of 118 KB, for one that is shown.
    return page.replace("fab fa-github", "fas fa-code-branch")


def parameters(found: re.Match[str]) -> str:
    lines = re.sub(r"<dd>(.*?)</dd>", r'<span class="sig-line">\1</span>', found[1])
    return f'<span class="sig-lines">{lines}</span>'


def readable(page: str) -> str:
    """With the roles and names that a screen reader needs."""
    page = page.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    toggle = '<summary><span class="toctree-toggle"'  # an icon alone
    named = toggle.replace("<summary", '<summary aria-label="Pages below this one"')
    page = page.replace(toggle, named)
    page = PARTS.sub(r'\1 aria-label="Pages of: \2">', page)
    # A notebook links to a file beside it; on the site it is opened, not downloaded.
    page = DOWNLOAD.sub(r'class="reference internal" href="\1_static/\2"', page)
    page = page.replace(' role="doc-biblioentry"', ' role="listitem"')
    page = re.sub(r'<th class="head( [^"]*)?">\s*(<p></p>)?\s*</th>', "<td></td>", page)
    # A symbol alone as a heading is no text to axe: MathJax draws it, and hides MathML.
    page = SYMBOL.sub(r"\1<i>\2</i><sub>\3</sub>\4", page)
    page = PARAMETERS.sub(parameters, page)
    # The path of a test may go on in the next line, between its words.
    page = re.sub(
        r'(?<=<span class="pre">)tests/[^<]*::[^<]*',
        lambda found: re.sub(r"(/|::|_)(?=\w)", r"\1<wbr>", found[0]),
        page,
    )
    # An option stays in one piece: a browser would break it behind its hyphens.
    page = re.sub(
        r'<span class="pre">(-[^<]{1,30})</span>',
        r'<span class="pre option">\1</span>',
        page,
    )
    page = page.replace(
        SIDEBAR,
        SIDEBAR.replace("class", 'role="complementary" aria-label="Book" class'),
    )
    page = re.sub(
        r'(<button class="btn search-button-field[^>]*?) aria-label="Search"',
        r"\1",
        page,
    )
    page = re.sub(r'\s*<meta name="viewport"[^>]*>', "", page)
    meta = '<meta name="viewport" content="width=device-width, initial-scale=1" />'
    page = page.replace("<head>", f"<head>\n    {meta}", 1)
    # Sphinx puts formulas of several lines into an environment that allows no number.
    return re.sub(
        r"\\\[\\begin\{split\}((?:(?!\\end\{split\}).)*\\tag\{[^}]*\}\s*)\\end\{split\}",
        r"\\[\1",
        page,
        flags=re.S,
    )


def plain(html: str) -> str:
    text = re.sub(r'<span class="math[^"]*">.*?</span>', "…", html, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", "", text)).split())


def description(page: str) -> str:
    """The first paragraph of running text, cut at a word."""
    article = page.partition("<article")[2]
    for found in re.findall(r"<p>(.*?)</p>", article, flags=re.S):
        text = plain(found)
        if len(text) < 80 or text.startswith(("Time and seeds", "You need", "After")):
            continue
        return text if len(text) <= 200 else text[:200].rsplit(" ", 1)[0] + " …"
    return "Particle filtering for language models: an executable book and its package."


def described(page: str, name: str) -> str:
    title = re.search(r"<title>(.*?)</title>", page, flags=re.S)
    if title is None or 'property="og:title"' in page:
        return page
    said = {
        "og:title": plain(title[1]),
        "og:description": description(page),
        "og:type": "article",
        "og:url": SITE + name,
        "og:image": SITE + CARD,
        "og:image:alt": "Particles are weighed and resampled, beside the book's title.",
    }
    lines = [f'<meta name="description" content="{escape(said["og:description"])}" />']
    lines += [f'<meta property="{k}" content="{escape(v)}" />' for k, v in said.items()]
    lines.append('<meta name="twitter:card" content="summary_large_image" />')
    return page.replace("</title>", "</title>\n    " + "\n    ".join(lines), 1)


def finished(page: str, name: str) -> str:
    """A page as it is published; to finish it twice changes nothing."""
    return described(readable(lighter(page, name)), name)


def quiet(script: str) -> str:
    """The same script, which tells the console nothing about its work."""
    return re.sub(r"\bconsole\.(log|info|debug)\(", "void(", script)


def slim(style: str, used: set[str]) -> str:
    """The theme's style sheet, with the rules of those icons that are used."""

    def kept(rule: re.Match[str]) -> str:
        names = re.findall(r"\.(fa-[a-z0-9-]+):before", rule[1])
        return rule[0] if used.intersection(names) else ""

    return ICON.sub(kept, style)


def finish(app, exception) -> None:
    if exception or app.builder.name != "html":
        return
    root = Path(app.outdir)
    icon = re.compile(r"fa-[a-z0-9-]+")
    for copy in (root / "_downloads").rglob("run*.html"):  # links lead to _static
        copy.unlink()
    used: set[str] = set()
    for path in root.rglob("*.html"):
        name = path.relative_to(root).as_posix()
        page = path.read_text(encoding="utf-8")
        if "_static" in path.parts or "<main" not in page:
            continue
        page = finished(page, name)
        path.write_text(page, encoding="utf-8")
        used.update(icon.findall(page))
    scripts = ["scripts/pydata-sphinx-theme.js", "togglebutton.js"]
    for script in (root / "_static" / name for name in scripts):
        text = script.read_text(encoding="utf-8")
        used.update(icon.findall(text))
        script.write_text(quiet(text), encoding="utf-8")
    style = root / "_static" / "styles" / "pydata-sphinx-theme.css"
    style.write_text(slim(style.read_text(encoding="utf-8"), used), encoding="utf-8")


def setup(app):
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
