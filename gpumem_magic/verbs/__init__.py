"""What people ask for that needs their own objects: the same for magics and for the functions in Python."""
