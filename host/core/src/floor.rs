//! What no plan may ask for, whatever policies say.
