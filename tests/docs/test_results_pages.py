"""The benchmarks' files as pages."""

import json

from results_pages import RESULTS, bench_page, markdown_page


def test_bench_page_has_every_setting():
    results = json.loads((RESULTS / "cpu.json").read_text())
    text = bench_page(RESULTS / "cpu.json")
    settings = {tuple(row["setting"].values()) for row in results["rows"]}
    rows = [line for line in text.splitlines() if line[:3].strip("| ").isdigit()]
    assert len(rows) == len(settings)
    row = results["rows"][0]
    assert f"| 1,024 | float32 | forward | {row['ratio']:.2f} |" in text


def test_markdown_has_a_title(tmp_path):
    (tmp_path / "gpu.md").write_text("Some device.\n")
    assert markdown_page(tmp_path / "gpu.md") == "# gpu\n\nSome device.\n"
    (tmp_path / "titled.md").write_text("# Title\n")
    assert markdown_page(tmp_path / "titled.md") == "# Title\n"
