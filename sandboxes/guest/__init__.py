"""What runs beside an agent's commands: stdlib only, no package around it, Python 3.8 and later.

The parent starts it with this folder's parent on `sys.path`, or sends its text into a container. Nothing here may
import from the rest of the SDK.
"""
