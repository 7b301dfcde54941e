"""``python -m lateen`` is the ``lateen`` command."""

from lateen.cli.main import run

run()
