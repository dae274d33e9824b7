"""`completion`: scripts that make a shell complete commands, options and asset keys."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Examples:
      eval "$(headwater completion bash)"                      in ~/.bashrc
      eval "$(headwater completion zsh)"                       in ~/.zshrc
      headwater completion fish > ~/.config/fish/completions/headwater.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # click knows all three
    root = context.find_root().command
    click.echo(found(root, {}, "headwater", "_HEADWATER_COMPLETE").source())
