"""What scripts/prove_extensions says of patches that do not do what the table says."""

import importlib.util
import pathlib
import tempfile
import unittest
from importlib.machinery import SourceFileLoader

SCRIPT = pathlib.Path(__file__).resolve().parent.parent.parent / "scripts/prove_extensions"
loader = SourceFileLoader("prove_extensions", str(SCRIPT))
prove = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(prove)

ROWS = {"a metric": prove.Row("in `src/metrics/`", "a line in `src/registry.cpp`; a field in `src/config.h` when it has keys")}
CHANGED = "diff --git a/{0} b/{0}\n--- a/{0}\n+++ b/{0}\n@@ -1 +1,2 @@\n a\n+b\n"
NEW = "diff --git a/{0} b/{0}\nnew file mode 100644\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+a\n"
REMOVED = "diff --git a/{0} b/{0}\ndeleted file mode 100644\n--- a/{0}\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
REGISTERED = NEW.format("src/metrics/mine.cpp") + CHANGED.format("src/registry.cpp")


class Faults(unittest.TestCase):
    def faults(self, diff, head="row: a metric\ntry: trainer\nexpect: done\n"):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "mine.patch"
            path.write_text("Mine.\n" + head + "\n" + diff)
            return list(prove.Patch(path).faults(ROWS))

    def test_a_patch_of_what_the_table_names_has_none(self):
        self.assertEqual(self.faults(REGISTERED), [])
        self.assertEqual(self.faults(REGISTERED + CHANGED.format("src/config.h")), [])

    def test_a_file_that_the_table_does_not_name_is_one(self):
        self.assertEqual(self.faults(REGISTERED + CHANGED.format("src/other.cpp")),
                         ["README does not name src/other.cpp, which is touched"])

    def test_a_place_that_need_not_be_touched_is_one(self):
        self.assertEqual(self.faults(NEW.format("src/metrics/mine.cpp")),
                         ["README names src/registry.cpp, which need not be touched"])

    def test_a_new_file_elsewhere_is_one(self):
        self.assertEqual(self.faults(REGISTERED + NEW.format("src/metric.cpp")), ["README names no folder for src/metric.cpp"])

    def test_a_removed_file_is_one(self):
        self.assertEqual(self.faults(REGISTERED + REMOVED.format("src/old.cpp")), ["src/old.cpp is removed or renamed"])

    def test_a_row_that_is_not_there_is_one(self):
        self.assertEqual(self.faults(REGISTERED, "row: a thing\ntry: trainer\nexpect: done\n"), ["no such row: ['a thing']"])

    def test_nothing_to_try_is_one(self):
        self.assertEqual(len(self.faults(REGISTERED, "row: a metric\nexpect: done\n")), 1)

    def test_the_table_of_the_readme_is_read(self):
        rows = prove.table()
        self.assertIn("src/score/metrics/registry.cpp", rows["an evaluation metric"].required)
        self.assertIn("src/kernels/", rows["a kernel"].folders)
        self.assertTrue(all(row.folders and row.required for row in rows.values()))


if __name__ == "__main__":
    unittest.main()
