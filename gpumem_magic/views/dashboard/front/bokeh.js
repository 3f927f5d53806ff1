// BokehJS, once per page. It comes from the kernel, since nothing may be fetched from elsewhere, and is evaluated with
// an object of our own in the place of the page's globals: a Bokeh that others brought stays theirs, untouched.

const SHARED = Symbol.for("gpumem_magic.bokeh");

async function loadBokeh(model) {
  globalThis[SHARED] ??= new Map();
  const loaded = globalThis[SHARED];
  const version = model.get("bokeh_version");
  if (!loaded.has(version)) {
    const made = evaluateBokeh(model);
    made.catch(() => loaded.delete(version)); // the next view tries again: the kernel may have been busy or gone
    loaded.set(version, made);
  }
  return loaded.get(version);
}

async function evaluateBokeh(model) {
  const carrier = await model.widget_manager.get_model(model.get("bokeh_script").replace("IPY_MODEL_", ""));
  const script = new TextDecoder().decode(await unzipped(carrier.get("script")));
  // A module of its own, and no eval: pages with a policy about scripts admit the one, as anywidget needs it too.
  const module = ["const globals = {};\n(function () {", script, "}).call(globals);\nexport default globals.Bokeh;"];
  const url = URL.createObjectURL(new Blob(module, {type: "text/javascript"}));
  try {
    const {default: Bokeh} = await import(url);
    Bokeh.set_log_level("error");
    return Bokeh;
  } finally {
    URL.revokeObjectURL(url);
  }
}
