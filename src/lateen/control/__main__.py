"""``python -m lateen.control`` is istiod."""

from lateen.control.app import main

main()
