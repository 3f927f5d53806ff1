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
      const show = (Bokeh) => {
        view?.remove();
        view = new View({store, root, Bokeh});
        view.rebuilt = () => show(Bokeh);
      };
      try {
        const [Bokeh] = await Promise.all([loadBokeh(model), store.ready]);
        if (!gone) show(Bokeh);
      } catch (error) {
        root.textContent = `The dashboard cannot be drawn in this page: ${error.message}. ` +
          "%gpumem timeline shows the same picture without a script.";
      }
      return () => {
        gone = true;
        view?.remove();
      };
    },
  };
};
