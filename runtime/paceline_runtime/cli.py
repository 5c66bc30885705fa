"""The `paceline-runtime` command.

Started by the containers of engine and router pods, by their preStop hooks, and by `paceline serve` on a
laptop. A command's module is imported when that command runs: a preStop hook must not wait for the imports of
a server. It holds no behaviour of its own.
"""

from __future__ import annotations

from importlib import import_module

import click

_COMMANDS = {
    "serve": ("paceline_runtime.launch.serve_command", "serve", "Serve one model on this pod's port."),
    "emulate": (
        "paceline_runtime.launch.emulate_command",
        "emulate",
        "Serve at the pace of a GPU that is not there. Also: --emulate.",
    ),
    "emulation": (
        "paceline_runtime.launch.emulation_command",
        "emulation",
        "Show or change how an emulated GPU behaves now.",
    ),
    "drain": ("paceline_runtime.launch.drain_command", "drain", "preStop: leave the routers, then wait."),
    "bundle": ("paceline_runtime.launch.bundle", "bundle", "Make a bundled model's files (for developers)."),
    "gate": ("paceline_runtime.gate.commands", "gate", "Guard the router of one service."),
    "router": ("paceline_runtime.gate.commands", "router", "Become vllm-router, with a service's flags."),
    "gate-drain": ("paceline_runtime.gate.commands", "gate_drain", "preStop of the gate."),
}
"""name -> (module, attribute, the line that `--help` shows without importing the module)."""


class LazyGroup(click.Group):
    """A click group whose commands are imported on first use."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["--emulate"]:
            args = ["emulate", *args[1:]]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=LazyGroup)
@click.version_option(package_name="paceline-runtime")
def main() -> None:
    """Run one part of a Paceline pod."""


if __name__ == "__main__":
    main()
