const PATIENCE_MS = 5000;

// Fonts and colours can be asked of an element only once it is part of the page.
async function connected(element) {
  const deadline = performance.now() + PATIENCE_MS;
  while (!element.isConnected && performance.now() < deadline) await new Promise(requestAnimationFrame);
}

// What the widget manager of the page calls: once for a model, then once for each place that shows it.

export default () => {
  let store;
  return {
    initialize({model}) {
      store = new Store(model);
    },
    async render({model, el}) {
      const root = element("section", {class: "gpumem gm-dashboard", "aria-label": "GPU memory, live"});
      const style = element("style");
      const {token} = model.get("state").config;
      style.textContent = model.get("sheet") + (token ? `.gpumem-${token}{display:none}` : "");
      el.append(style, root);
      let view = null, gone = false;
      const explain = (error) => {
        if (gone) return;
        view?.remove();
        view = null;
        style.textContent = model.get("sheet"); // the still picture comes back
        root.textContent = `The dashboard cannot be drawn in this page: ${error.message.replace(/[.\s]+$/, "")}. ` +
          "%gpumem timeline shows the same picture without a script.";
      };
      const show = (Bokeh) => {
        view?.remove();
        view = null;
        try {
          view = new View({store, root, Bokeh, onFailure: explain});
          view.rebuilt = () => show(Bokeh);
        } catch (error) {
          explain(error);
        }
      };
      try {
        const [Bokeh] = await Promise.all([loadBokeh(model), store.ready, connected(root)]);
        if (!gone) show(Bokeh);
      } catch (error) {
        explain(error);
      }
      return () => {
        gone = true;
        view?.remove();
        view = null;
        // Jupyter may keep the element: nothing of ours must hang on it.
        el.replaceChildren();
        root.replaceChildren();
        delete root.gpumem;
        store.release();
      };
    },
  };
};
