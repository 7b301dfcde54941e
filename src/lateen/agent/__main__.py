"""``python -m lateen.agent`` is pilot-agent."""

from lateen.agent.main import main

main()
