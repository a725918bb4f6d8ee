"""Follows every link in the Markdown of this repository that leads to a file of it, and to a heading there."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def anchors(page):
    """What the headings of a page are called, as GitHub does."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page):
    """The links of a page that lead nowhere."""
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or heading and heading not in anchors(target):
            yield link


listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
passed = failed = 0
for name in listed.stdout.split():
    links = list(broken(ROOT / name))
    failed += len(links)
    passed += not links
    for link in links:
        print(f"FAILED  docs: {name} links to {link}, which is not there")
print(f"{passed} passed, {failed} failed")
sys.exit(0 if failed == 0 else 1)
