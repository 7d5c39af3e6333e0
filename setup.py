"""Build the Cython extensions, each once per CPU level, from one source.

Everything else is in pyproject.toml. An extension named ``fastcnn_kernels.gemm.<level>.cython_`` is the
module ``fastcnn_kernels.gemm.cython_`` compiled for that level; ``fastcnn_kernels.cpu`` puts the folder of
the level in use on the family's ``__path__``, so the import system itself picks the right one.

Environment variables read here: ``FASTCNN_BOUNDSCHECK=1`` restores Cython's bounds checks, and
``FASTCNN_SANITIZE=1`` builds for AddressSanitizer and UBSan.
"""

import itertools
import os
import platform
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
SOURCES = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "kernels").glob("fastcnn_kernels/**/cython_.pyx")
)
# Extensions without vector code, each built once.
PLAIN = {
    "fastcnn_kernels.cpu_probe": "kernels/fastcnn_kernels/cpu_probe.pyx",
    "fastcnn_kernels.recall": "kernels/fastcnn_kernels/recall.pyx",
    "fastcnn_kernels.recycled": "kernels/fastcnn_kernels/recycled.pyx",
}
if not SOURCES or not all((ROOT / source).exists() for source in PLAIN.values()):
    raise SystemExit("setup.py: no Cython source found under kernels/fastcnn_kernels; is the source tree complete?")

# Folder name of each level -> the compiler flag that selects it (GCC and Clang).
LEVELS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    LEVELS |= {"x86_64_v3": ["-march=x86-64-v3"], "x86_64_v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}

BOUNDSCHECK = os.environ.get("FASTCNN_BOUNDSCHECK") == "1"
SANITIZE = os.environ.get("FASTCNN_SANITIZE") == "1"


class BuildPerLevel(build_ext):
    """Cythonize each source once under its canonical name, then compile it for every level, on all cores."""

    def finalize_options(self):
        """Compile extensions in parallel unless told how many at once."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        """Translate the sources, and give each level its copy of the C file: objects are named after it."""
        folder = Path(self.build_temp, "c")
        for source, group in itertools.groupby(self.extensions, key=lambda ext: ext.pyx_source):
            extensions = list(group)
            level = level_of(extensions[0])
            canonical = ".".join(part for part in extensions[0].name.split(".") if part != level)
            (translated,) = cythonize(
                [Extension(canonical, [source], depends=extensions[0].depends)],
                build_dir=str(folder),
                include_path=["kernels"],
                compiler_directives={
                    "language_level": 3, "boundscheck": BOUNDSCHECK, "wraparound": False, "cdivision": True,
                    "initializedcheck": False, "freethreading_compatible": True, "embedsignature": True,
                },
            )  # fmt: skip
            (c_file,) = translated.sources
            for ext in extensions:
                level = level_of(ext)
                copy = Path(self.build_temp, level or "plain", Path(c_file).relative_to(folder))
                self.mkpath(str(copy.parent))
                self.add_compiler_flags(ext, level)
                # What decides the object stands in the file; one that says the same is not compiled again.
                decides = f"/* {ext.extra_compile_args}, NumPy {np.__version__} */\n"
                text = decides + Path(c_file).read_text(encoding="utf-8")
                if not copy.exists() or copy.read_text(encoding="utf-8") != text:
                    copy.write_text(text, encoding="utf-8")
                ext.sources = [str(copy)]
        super().build_extensions()

    def copy_extensions_to_source(self):
        """Make the level folders, which exist in no checkout, for in-place and editable builds."""
        build_py = self.get_finalized_command("build_py")
        for ext in self.extensions:
            package = ext.name.rpartition(".")[0]
            os.makedirs(build_py.get_package_dir(package), exist_ok=True)
        super().copy_extensions_to_source()

    def add_compiler_flags(self, ext, level):
        """Flags of the level; OpenMP where the compiler has it under its usual name."""
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = ["/O2", "/openmp"]
            return
        ext.extra_compile_args = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", *LEVELS.get(level, [])]
        if platform.system() != "Darwin":  # Apple's clang ships no OpenMP runtime
            ext.extra_compile_args.append("-fopenmp")
            ext.extra_link_args = ["-fopenmp"]
        if SANITIZE:
            flags = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
            ext.extra_compile_args += flags
            ext.extra_link_args = [*ext.extra_link_args, *flags]


def extension(name, source):
    """Return an Extension whose Cython source is still listed after the C file takes its place."""
    headers = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "kernels").rglob("*.h"))
    ext = Extension(
        name,
        [source],
        depends=headers,
        include_dirs=["kernels", np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    )
    ext.pyx_source = source
    return ext


def level_of(ext):
    """Return the CPU level an extension is named for, or nothing."""
    folder = ext.name.split(".")[-2]
    return folder if folder in LEVELS else ""


def name_of(source, level):
    """Map kernels/fastcnn_kernels/gemm/cython_.pyx to fastcnn_kernels.gemm.<level>.cython_."""
    *folders, file = Path(source).with_suffix("").parts[1:]
    return ".".join([*folders, level, file])


setup(
    ext_modules=[
        *(extension(name, source) for name, source in PLAIN.items()),
        *(extension(name_of(source, level), source) for source in SOURCES for level in LEVELS),
    ],
    cmdclass={"build_ext": BuildPerLevel},
)
