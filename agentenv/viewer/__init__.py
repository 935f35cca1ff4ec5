"""The viewer: episode trees, their credit and a run's curves as a page, served while a run goes on or as one file."""

from agentenv.viewer.page import is_page, live_page, write_page
from agentenv.viewer.server import ViewServer
from agentenv.viewer.sources import Run
from agentenv.viewer.view import View

__all__ = ["Run", "View", "ViewServer", "is_page", "live_page", "write_page"]
