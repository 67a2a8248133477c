"""Packaging. `bin/` names the commands; an sdist carries all that a checkout has."""

import keyword
import re
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

from distutils.command.install_data import install_data  # isort: skip - setuptools brings it along

ROOT = Path(__file__).parent
COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("chex-*"))


class WithCompletion(install_data):
    """Manual pages as they are, and each shell's completion under the names by which it looks for it."""

    def run(self):
        super().run()
        cli = ROOT / "chextools/cli"
        places = {f"bash-completion/completions/{name}": cli / "completion.bash" for name in COMMANDS}
        places |= {f"fish/vendor_completions.d/{name}.fish": cli / "completion.fish" for name in COMMANDS}
        places["zsh/site-functions/_chextools"] = cli / "completion.zsh"
        for place, source in places.items():
            target = Path(self.install_dir, "share", place)
            self.mkpath(str(target.parent))
            self.outfiles.append(self.copy_file(str(source), str(target))[0])


def module_of(command: str) -> str:
    """The module of chextools.cli that a command is; none can be called like a word of Python's: bin/launch, too."""
    name = command.removeprefix("chex-")
    return name + "ing" if keyword.iskeyword(name) else name


class WholeSdist(sdist):
    """An sdist with the launchers, manual and tests, so that it builds, runs and passes its tests like a checkout."""

    def make_distribution(self):
        for folder in (".ci", "bin", "man", "tests"):
            files = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
            self.filelist.extend(sorted(str(path.relative_to(ROOT)) for path in files))
        super().make_distribution()


setup(
    name="chextools",
    version=re.search('__version__ = "(.+)"', (ROOT / "chextools/__init__.py").read_text())[1],
    description="Tell whether a chest X-ray classifier looks where radiologists look",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    author="The chextools authors",
    url="https://doi.org/10.1038/s42256-022-00536-x",  # the study that the commands re-implement
    python_requires=">=3.10",
    packages=find_packages(include=["chextools", "chextools.*"]),
    package_data={
        "chextools": ["py.typed"],
        "chextools.cli": ["completion.*"],
        "chextools.reporting": ["page.css", "page.js"],
    },
    install_requires=[
        "click>=8.1",
        "numpy>=1.26",
        "pillow>=11.2.1",  # older ones draw polygons a few pixels differently from the study's masks
        "pycocotools>=2.0.7",
        "scipy>=1.11",
        "torch>=2.2",
        "torchvision>=0.17",
        "tqdm>=4.60",
    ],
    extras_require={
        "dicom": ["pydicom>=3.0"],
        "hf": ["transformers>=4.40"],
        "tensorboard": ["tensorboard>=2.10"],
        "timm": ["timm>=1.0"],
        "xrv": ["torchxrayvision>=1.2"],
        # What the tests need, what they compare with (without it those are skipped, but in CI), what the gates need
        "test": ["pytest>=8", "hypothesis>=6.100", "pydicom>=3.0", "setuptools", "tensorboard>=2.10"],
        "parity": [
            "captum>=0.7",
            "grad-cam>=1.5",
            "monai>=1.3",
            "quantus>=0.6",
            "scikit-image>=0.22",
            "scikit-learn>=1.3",
            "simpleitk>=2.3",
            "surface-distance>=0.1",
            "timm>=1.0",
            "torchxrayvision>=1.2",
            "transformers>=4.40",
        ],
        "dev": ["ruff>=0.17,<0.18", "mypy>=2.4,<2.5"],
    },
    entry_points={"console_scripts": [f"{name} = chextools.cli.{module_of(name)}:main" for name in COMMANDS]},
    data_files=[(f"share/man/man{n}", sorted(glob(f"man/man{n}/*.{n}", root_dir=ROOT))) for n in (1, 7)],
    cmdclass={"install_data": WithCompletion, "sdist": WholeSdist},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
)
