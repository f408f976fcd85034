"""`crawl2chat recipe`: print a complete recipe file, with the meaning of every setting as a comment."""

import sys

from flows import recipe_files
from flows.cli.console import BaseModelOption, InputOption, MaxFilesOption, RecipeArgument, SetOption, encodable
from flows.recipes import make_recipe

HEADING = """The complete recipe {name}: change what you like, remove what stays, and run it with `crawl2chat run FILE`.
What is not named here is as in the recipe that it extends. The file's name is the recipe's, unless `name` is set."""


def recipe(
    recipe: RecipeArgument = "tiny",
    inputs: InputOption = [],
    max_files: MaxFilesOption = 0,
    settings: SetOption = [],
    base_model: BaseModelOption = "",
) -> None:
    """Print a recipe as a file, with a comment for every setting: `crawl2chat recipe tiny > my-recipe.yaml`."""
    made = make_recipe(recipe, inputs, max_files, settings, base_model)
    # `name` is left out, so that the file's name becomes the recipe's, and `extends` is put in front of all fields.
    text = recipe_files.write(made, HEADING.format(name=made.name), leave_out=frozenset({"name"}))
    heading, _, fields = text.partition("\n\n")
    # Not by the console, which would wrap lines and read [..] as markup: the output is a file.
    sys.stdout.write(encodable(f"{heading}\nextends: tiny\n\n{fields}", sys.stdout.encoding or "ascii"))
