"""Everything that pip needs to know: metadata, dependencies and extras stand here and nowhere else."""

from pathlib import Path

from setuptools import find_packages, setup

extras = {
    "demo": ["scikit-learn>=1.6", "matplotlib>=3.8", "threadpoolctl>=3.2"],
    "compare": ["matplotlib>=3.8", "joblib>=1.3", "threadpoolctl>=3.2"],
    "safetensors": ["safetensors>=0.4.3"],
    "onnx": ["onnx>=1.16", "onnxruntime>=1.18"],
    "sklearn": ["scikit-learn>=1.6"],
    "pandas": ["pandas>=2.2"],
    "tensorboard": ["tensorboardX>=2.6"],
    # scikit-learn brings the data of the example.
    "mpi": ["mpi4py>=4", "mpich>=4; platform_system != 'Windows'", "threadpoolctl>=3.2", "scikit-learn>=1.6"],
    "docs": ["sphinx>=8.2", "furo>=2025.7", "myst-parser>=4", "scikit-learn>=1.6"],
}
extras["test"] = [
    "pytest>=8", "pytest-xdist>=3.8", "sybil>=8", "hypothesis>=6.100", "setuptools>=77", "joblib>=1.3",
    "matplotlib>=3.8", "safetensors>=0.4.3",
    *extras["pandas"], *extras["onnx"], *extras["mpi"], *extras["tensorboard"], *extras["docs"],
]  # fmt: skip
extras["dev"] = [*extras["test"], *extras["compare"], "ruff>=0.9", "mypy>=1.14", "pytest-cov>=5"]

setup(
    name="layerwise",
    version="0.1.0",
    description="A layer-based deep learning framework on NumPy with callable optimizers",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    install_requires=["numpy>=2.0", "tqdm>=4.66"],
    extras_require=extras,
    py_modules=["layers", "loss", "optim", "model"],
    packages=find_packages(include=["layerwise", "layerwise.*"]),
    package_data={"layerwise": ["py.typed"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
