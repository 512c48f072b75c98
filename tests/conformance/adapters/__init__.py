"""How camcore and other libraries are asked for a map. A library is imported when it is asked, not before."""
