from lateen.cni.plugin import main

if __name__ == "__main__":
    main()
