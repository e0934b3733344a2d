"""Which packages there are: three source roots, and the graphs, which are data in a package without Python files.

All else is in pyproject.toml, which cannot say this without naming every subpackage.
"""

from setuptools import find_packages, setup

packages: list[str] = []
package_dir: dict[str, str] = {}
for root in ("engine", "kernels", "plugins"):
    for package in find_packages(root):
        packages.append(package)
        package_dir[package] = f"{root}/{package.replace('.', '/')}"

setup(
    packages=[*packages, "mezzotint_graphs"],
    package_dir={**package_dir, "mezzotint_graphs": "graphs"},
    include_package_data=False,
    package_data={
        "": ["py.typed", "*.json", "weights/**/*", "systems/*.safetensors", "templates/**/*", "data/*"],
        "mezzotint_graphs": ["**/*"],
    },
)
